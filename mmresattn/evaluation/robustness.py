"""Accuracy under adversarial attacks: FGSM (Goodfellow et al., arXiv:1412.6572) and PGD (Madry et al.,
arXiv:1706.06083), untargeted and in the maximum norm.

Captum makes the steps. Two things differ from its defaults: its threshold of 1e-6, below which it takes a gradient for
zero, is 0 here, as gradients by pixels of 0..255 are that small; and its loss is :func:`wrong_odds`.
"""

import warnings
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor

from ..utils import class_scores
from .batches import first_images

ATTACKS = ('fgsm', 'pgd')


def wrong_odds(scores: Tensor, labels: Tensor) -> Tensor:
    """Logarithm of the odds of all wrong classes against the right one.

    Cross-entropy is the softplus of it, so both have gradients of the same sign, by which the attacks step. But that of
    cross-entropy rounds to zero where a network is sure, which would look like robustness.

    Args:
        scores (Tensor): Logits (N, classes).
        labels (Tensor): Right classes (N,).

    Returns:
        Tensor: Losses (N,).
    """
    labels = labels[:, None]
    return scores.scatter(1, labels, -torch.inf).logsumexp(1) - scores.gather(1, labels)[:, 0]


def _scores(model: BaseModel, images: Tensor) -> Tensor:
    """Logits (N, classes) of images (N, C, H, W) in pixel units, before any normalisation."""
    return class_scores(model, model.data_preprocessor({'inputs': images}, training=False)['inputs'])


def _check(model: BaseModel, eps: Sequence[float], attacks: Sequence[str], steps: int, step_size: float | None) -> None:
    if getattr(getattr(model, 'data_preprocessor', None), 'mean', None) is None:
        raise ValueError(
            'The classifier must normalise its images itself, so that attacks know what a pixel is: give it '
            'data_preprocessor=dict(mean=..., std=...) and take Normalize out of the pipeline.'
        )
    if not eps or not all(0 <= e <= 255 for e in eps):
        raise ValueError(f'eps is in pixel units, from 0 to 255, and there is at least one; got {list(eps)}.')
    if not attacks or not set(attacks) <= set(ATTACKS):
        raise ValueError(f'Attacks are of {list(ATTACKS)}, not {list(attacks)}.')
    if steps < 1:
        raise ValueError(f'PGD takes at least 1 step, not {steps}.')
    if step_size is not None and not step_size > 0:
        raise ValueError(f'step_size is in pixel units and above 0, or None for 2.5 * eps / steps; got {step_size}.')


def adversarial_images(
    model: BaseModel,
    images: Tensor,
    labels: Tensor,
    attack: str,
    eps: float,
    steps: int = 10,
    step_size: float | None = None,
) -> Tensor:
    """Images that a classifier takes for something else, each pixel changed by at most ``eps``.

    Args:
        model (BaseModel): Classifier of MMPretrain's kind, in evaluation mode: a ``data_preprocessor`` that normalises
            (and may turn BGR into RGB), and logits from ``mode='tensor'``.
        images (Tensor): Images (N, C, H, W) as its pipeline packs them, of values in [0, 255].
        labels (Tensor): Right classes (N,), integers.
        attack (str): ``'fgsm'``, one step of ``eps``; or ``'pgd'``, ``steps`` steps from a random start within ``eps``.
        eps (float): Largest change of a value, in pixel units of 0..255.
        steps (int): Steps of PGD. Defaults to 10.
        step_size (float, optional): Of PGD, in pixel units. Defaults to ``2.5 * eps / steps``.

    Returns:
        Tensor: Images (N, C, H, W), float32 in [0, 255], not rounded to whole levels, within ``eps`` of ``images`` but
        for rounding. The random start is drawn from PyTorch's global generator.

    Raises:
        ImportError: If captum is not installed.
        ValueError: If an argument does not fit.
    """
    try:
        from captum.robust import FGSM, PGD
    except ImportError as error:
        raise ImportError('Adversarial attacks need captum: pip install captum') from error

    _check(model, [eps], [attack], steps, step_size)
    images = images.float()
    if images.min() < 0 or images.max() > 255:
        raise ValueError(
            f'Images must have values in [0, 255], got [{images.min():g}, {images.max():g}]: take Normalize out of the '
            'pipeline and let the data_preprocessor do it.'
        )
    if eps == 0:
        return images
    make = dict(loss_func=wrong_odds, lower_bound=0, upper_bound=255)
    scores = partial(_scores, model)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Input Tensor 0 did not already require gradients')
        if attack == 'fgsm':
            fgsm = FGSM(scores, **make)
            fgsm.zero_thresh = 0
            return fgsm.perturb(images, eps, labels)
        pgd = PGD(scores, **make)
        pgd.fgsm.zero_thresh = 0
        step_size = 2.5 * eps / steps if step_size is None else step_size
        return pgd.perturb(images, eps, step_size, steps, labels, random_start=True)


def adversarial_accuracy(
    model: BaseModel,
    loader: Iterable[dict],
    eps: Sequence[float],
    attacks: Sequence[str] = ATTACKS,
    steps: int = 10,
    step_size: float | None = None,
    max_images: int | None = None,
    seed: int = 0,
) -> dict[str, dict[float, float]]:
    """Top-1 accuracy of a classifier on images that were changed against it.

    Args:
        model (BaseModel): Classifier as for :func:`adversarial_images`; it is put into evaluation mode.
        loader (Iterable[dict]): Batches of a test dataloader: ``inputs`` (N, C, H, W) in [0, 255] and ``data_samples``
            with one ``gt_label`` each.
        eps (Sequence[float]): Largest changes of a value, in pixel units of 0..255. 0 gives the accuracy on the images
            as they are.
        attacks (Sequence[str]): Of ``'fgsm'`` and ``'pgd'``. Defaults to both.
        steps (int): Steps of PGD. Defaults to 10.
        step_size (float, optional): Of PGD, in pixel units. Defaults to ``2.5 * eps / steps`` for each eps.
        max_images (int, optional): Use the first so many images. Defaults to all.
        seed (int): Of PGD's random starts, at least 0. Those of a batch are the same, but for their size, for every
            eps. PyTorch's generators are left as they were. Defaults to 0.

    Returns:
        Dict[str, Dict[float, float]]: For each attack and each eps the accuracy in percent.

    Raises:
        ImportError: If captum is not installed.
        ValueError: If an argument or the data does not fit.
    """
    _check(model, eps, attacks, steps, step_size)
    model.eval()
    device = next(model.parameters()).device
    right = {attack: dict.fromkeys(eps, 0) for attack in attacks}
    total = 0
    for index, batch in enumerate(first_images(loader, max_images)):
        images = batch['inputs'].to(device)
        if not all(len(sample.get('gt_label', ())) == 1 for sample in batch['data_samples']):
            raise ValueError('Every image needs exactly one gt_label: accuracy is of single-label classification.')
        labels = torch.cat([sample.gt_label for sample in batch['data_samples']]).to(device)
        total += len(images)
        start = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
        for attack in attacks:
            for e in eps:
                with torch.random.fork_rng():
                    torch.manual_seed(start)
                    attacked = adversarial_images(model, images, labels, attack, e, steps, step_size)
                with torch.no_grad():
                    predicted = _scores(model, attacked).argmax(1)
                right[attack][e] += (predicted == labels).sum().item()
    if not total:
        raise ValueError('There are no images.')
    return {attack: {e: 100 * n / total for e, n in counts.items()} for attack, counts in right.items()}
