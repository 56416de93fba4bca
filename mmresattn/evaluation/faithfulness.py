"""Is a map faithful? Measures of how well a map shows what a classifier's answer depends on.

Deletion and insertion (Petsiuk et al., BMVC 2018, arXiv:1806.07421) and ROAD (Rong et al., ICML 2022, arXiv:2202.00449)
change the image by the order in which a map ranks its pixels. The pointing game (Zhang et al., ECCV 2016,
arXiv:1608.00507) and the overlap with a mask compare a map with what a person marked.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ..models.layers import attention_maps, record_attention
from ..utils import class_scores
from .imputation import impute

MEASURES = ('deletion', 'insertion', 'road', 'pointing', 'overlap')
BASELINES = ('centre', 'random', 'random, smooth')
PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)


def pixel_order(maps: Tensor, seed: int = 0) -> Tensor:
    """Pixels from the most to the least attended.

    Args:
        maps (Tensor): Maps (N, H, W).
        seed (int): Of the order among pixels of equal attention, which would else go row by row. Defaults to 0.

    Returns:
        Tensor: Indices (N, H W) into rows laid end to end.
    """
    flat = maps.flatten(1).cpu()
    shuffled = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed), device='cpu')
    return shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]


@torch.no_grad()
def perturbation_curve(
    score: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, order: Tensor, steps: int
) -> Tensor:
    """Scores while pixels are replaced, in some order.

    Args:
        score (Callable): Scores (N,) of images (N, C, H, W).
        start (Tensor): Images (N, C, H, W) of which pixels are replaced.
        end (Tensor): Images (N, C, H, W) from which the new pixels come.
        order (Tensor): Pixels (N, H W), the first to be replaced first: :func:`pixel_order`.
        steps (int): In how many steps, from 1 to H W, equal but for rounding.

    Returns:
        Tensor: Scores (N, steps + 1) on the CPU: of ``start``, after each step, and so of ``end`` at last.

    Raises:
        ValueError: If there are no or more steps than pixels.
    """
    pixels = order.shape[1]
    if not 1 <= steps <= pixels:
        raise ValueError(f'steps is from 1 to the {pixels} pixels of an image, not {steps}.')
    rank = order.argsort(1).view(-1, 1, *start.shape[2:]).to(start.device)
    scores = [score(torch.where(rank < round(pixels * i / steps), end, start)).cpu() for i in range(steps + 1)]
    return torch.stack(scores, 1)


def area(curve: Tensor) -> Tensor:
    """Area under a curve (N, steps + 1) over shares of pixels from 0 to 1, by trapezoids: (N,)."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1))


def deletion_and_insertion(
    score: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, steps: int = 32, seed: int = 0
) -> dict[str, Tensor]:
    """Areas under the curves of deletion and insertion.

    Deletion turns pixels to 0, the most attended first: for normalised images that is the mean colour. Insertion begins
    with the blurred image (11x11 pixels or, of smaller images, as many as there are, sigma 5) and puts its pixels back.
    A true map has a small area of deletion and a large one of insertion.

    Args:
        score (Callable): Scores (N,) of images (N, C, H, W), such as probabilities of a class.
        images (Tensor): Images (N, C, H, W), normalised.
        maps (Tensor): Maps (N, H, W).
        steps (int): Steps of a curve, from 1 to H W. Defaults to 32.
        seed (int): Of the order of equal pixels. Defaults to 0.

    Returns:
        Dict[str, Tensor]: ``deletion`` and ``insertion``, areas (N,) in the range of the scores.
    """
    order = pixel_order(maps, seed)
    kernel = [min(11, side - (side + 1) % 2) for side in reversed(images.shape[2:])]  # odd; width first
    blurred = gaussian_blur(images, kernel, [5.0, 5.0])
    return dict(
        deletion=area(perturbation_curve(score, images, torch.zeros_like(images), order, steps)),
        insertion=area(perturbation_curve(score, blurred, images, order, steps)),
    )


@torch.no_grad()
def road(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    maps: Tensor,
    labels: Tensor,
    percentiles: Sequence[int] = PERCENTILES,
    seed: int = 0,
) -> Tensor:
    """ROAD, combined: removed pixels are imputed from their neighbours, which leaves no edges to see.

    Half of how much more the probability of the class falls when the most attended pixels are removed than when the
    least attended ones are, as a mean over shares. Pixels of equal attention go in random order.

    Args:
        model (Callable): Logits (N, classes) of images (N, C, H, W).
        images (Tensor): Images (N, C, H, W), normalised.
        maps (Tensor): Maps (N, H, W).
        labels (Tensor): Class (N,) of each image.
        percentiles (Sequence[int]): Shares of pixels that stay, above 0 and below 100. Defaults to 10, 20 ... 90.
        seed (int): Of the noise, and of the order of equal pixels. PyTorch's random state stays. Defaults to 0.

    Returns:
        Tensor: Values (N,) from -0.5 to 0.5; the larger, the more faithful the map.

    Raises:
        ValueError: If a percentile is out of range.
    """
    if not percentiles or not all(0 < percentile < 100 for percentile in percentiles):
        raise ValueError(f'percentiles are above 0 and below 100, and there is at least one; got {list(percentiles)}.')
    rank = pixel_order(maps, seed).argsort(1).view(-1, 1, *images.shape[2:]).to(images.device)  # 0: most attended
    pixels = rank[0].numel()
    generator = torch.Generator(images.device).manual_seed(seed)

    def probability(kept: Tensor) -> Tensor:
        scores = model(impute(images, kept, generator=generator)).softmax(1)
        return scores.gather(1, labels[:, None].to(scores.device))[:, 0].cpu()

    gains = []
    for percentile in percentiles:
        count = round(pixels * percentile / 100)
        gains.append(probability(rank < count) - probability(rank >= pixels - count))
    return torch.stack(gains).mean(0).double() / 2


def boxes_mask(boxes: Sequence[Sequence[float]], shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres are in one of some boxes.

    Args:
        boxes (Sequence): Boxes (x1, y1, x2, y2), in pixels from the upper left corner.
        shape (Tuple[int, int]): Height and width of the image.

    Returns:
        np.ndarray: Mask (H, W), bool.
    """
    y, x = np.indices(shape) + 0.5
    mask = np.zeros(shape, bool)
    for x1, y1, x2, y2 in boxes:
        mask |= (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
    return mask


def pointing_game(attention: Tensor | np.ndarray, mask: np.ndarray, tolerance: float = 0) -> bool:
    """Whether the most attended pixel is on the object.

    Args:
        attention (Tensor | np.ndarray): Map (h, w); it is resized to the mask. NaN is never the most attended.
        mask (np.ndarray): The object (H, W), bool; of boxes :func:`boxes_mask`.
        tolerance (float): How many pixels beside the object still count; 15 in the paper. Defaults to 0.

    Returns:
        bool: Whether it is. Of several pixels of the same greatest attention the first one by rows counts.

    Raises:
        ValueError: If the mask is empty.
    """
    resized = _on_mask(attention, mask)
    row, column = np.unravel_index(np.nanargmax(resized), mask.shape)
    rows, columns = np.nonzero(mask)
    return bool(np.hypot(rows - row, columns - column).min() <= tolerance)


def mask_iou(attention: Tensor | np.ndarray, mask: np.ndarray) -> float:
    """Overlap of an object with the pixels that a map attends to most, as many as the object has.

    Args:
        attention (Tensor | np.ndarray): Map (h, w); it is resized to the mask. NaN is attended to least.
        mask (np.ndarray): The object (H, W), bool; of boxes :func:`boxes_mask`.

    Returns:
        float: Intersection over union, from 0 to 1.

    Raises:
        ValueError: If the mask is empty.
    """
    resized = torch.from_numpy(np.nan_to_num(_on_mask(attention, mask), nan=-np.inf))[None]
    size = np.count_nonzero(mask)
    on_object = np.count_nonzero(mask.flat[pixel_order(resized)[0, :size].cpu().numpy()])
    return on_object / (2 * size - on_object)


def mass_in_mask(attention: Tensor | np.ndarray, mask: np.ndarray) -> float:
    """The share of a map's attention that lies on an object.

    A map that knows nothing has the object's share of the area there.

    Args:
        attention (Tensor | np.ndarray): Map (h, w) of values from 0 on; it is resized to the mask. NaN counts as 0.
        mask (np.ndarray): The object (H, W), bool; of boxes :func:`boxes_mask`.

    Returns:
        float: From 0 to 1.

    Raises:
        ValueError: If the mask is empty, or the map is 0 everywhere.
    """
    resized = np.nan_to_num(_on_mask(attention, mask))
    if not resized.sum() > 0:
        raise ValueError('The map is 0 everywhere.')
    return float(resized[mask].sum() / resized.sum())


def _on_mask(attention: Tensor | np.ndarray, mask: np.ndarray) -> np.ndarray:
    if mask.dtype != bool or mask.ndim != 2 or not mask.any():
        raise ValueError(f'A mask is bool (height, width) and not empty; got {mask.dtype} of {mask.shape}.')
    from ..visualization import resize_map  # with it comes Matplotlib

    return resize_map(attention, mask.shape)


def baseline_maps(count: int, shape: tuple[int, int], seed: int = 0) -> dict[str, Tensor]:
    """Maps that know nothing of an image, below which no measure should find a map.

    Args:
        count (int): How many images N.
        shape (Tuple[int, int]): Height and width of the images.
        seed (int): Seed. Defaults to 0.

    Returns:
        Dict[str, Tensor]: Maps (N, H, W): ``centre``, a Gaussian in the middle with a deviation of a quarter of the
        sides, as objects stand in the middle of photographs; ``random``, uniform for each pixel; and ``random,
        smooth``, uniform on a grid of 4x4 and interpolated, as maps of a network are smooth.
    """
    generator = torch.Generator().manual_seed(seed)
    y, x = (((torch.arange(side) + 0.5) / side - 0.5) / 0.25 for side in shape)
    centre = torch.exp(-(y[:, None] ** 2 + x**2) / 2)
    coarse = torch.rand(count, 1, 4, 4, generator=generator, device='cpu')
    return {
        'centre': centre.expand(count, -1, -1),
        'random': torch.rand(count, *shape, generator=generator, device='cpu'),
        'random, smooth': torch.nn.functional.interpolate(coarse, shape, mode='bilinear', align_corners=False)[:, 0],
    }


def faithfulness(
    model: BaseModel,
    loader: Iterable[dict],
    layers: Sequence[str] | None = None,
    *,
    reductions: Sequence[str] = ('strongest',),
    cams: Sequence[str] = ('gradcam',),
    steps: int = 32,
    percentiles: Sequence[int] = PERCENTILES,
    seed: int = 0,
    baselines: Sequence[str] = BASELINES,
    masks: Sequence[np.ndarray | None] | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Deletion, insertion and ROAD of a classifier's maps, of class activation maps and of maps that know nothing.

    What is measured is the probability of the class that the classifier predicts for the whole image. Results follow
    from the seed and the batches. PyTorch's random state stays as it is.

    Args:
        model (BaseModel): Classifier of MMPretrain's kind: with a ``data_preprocessor``, and logits (N, classes) from
            ``mode='tensor'``. It is put into evaluation mode.
        loader (Iterable[dict]): Batches of ``inputs`` (N, C, H, W), all of one size in a batch.
        layers (Sequence[str], optional): Names of its maps. Defaults to all that have positions.
        reductions (Sequence[str]): Of their channels or heads, to one map: of ``'strongest'``, ``'mean'`` and
            ``'max'``. Defaults to ``['strongest']``. Several measure a map of several channels under each of them.
        cams (Sequence[str]): Methods of :func:`~mmresattn.visualization.class_activation_maps` to compare with.
            Defaults to Grad-CAM.
        steps (int): Steps of the curves; 0 to leave them out. Defaults to 32.
        percentiles (Sequence[int]): Of ROAD; empty to leave it out. Defaults to 10, 20 ... 90.
        seed (int): Of random maps, noise and the order of equal pixels. Defaults to 0.
        baselines (Sequence[str]): Which of the maps of :func:`baseline_maps` to compare with. Defaults to all.
        masks (Sequence, optional): For each image the object, bool (H, W), or None where it is not known. Defaults to
            none.

    Returns:
        Dict[str, Dict[str, Tensor]]: By map, for each of ``MEASURES`` the values of all images (images,). Those that
        compare with masks are of the images with a mask.

    Raises:
        ImportError: If grad-cam is missing, for class activation maps.
        KeyError: If a layer is unknown.
        ValueError: If the model gives no such scores, its preprocessor pads, or there are no images.
    """
    attention_maps(model, layers)
    model.eval()
    device = next(model.parameters()).device
    values: dict[str, dict[str, list[Tensor]]] = {}
    images_before = 0
    for batch in loader:
        images = batch['inputs'].to(device)
        inputs = model.data_preprocessor({'inputs': images}, training=False)['inputs']
        if inputs.shape[2:] != images.shape[2:]:
            raise ValueError(
                f'The data_preprocessor pads images of {tuple(images.shape[2:])} to {tuple(inputs.shape[2:])}: resize '
                'them in the test pipeline instead.'
            )
        logits, maps = _predict(model, inputs, layers, reductions)
        labels = logits.argmax(1)
        from ..visualization import class_activation_maps

        maps |= {method: class_activation_maps(model, images, labels, method) for method in cams}
        without_knowledge = baseline_maps(len(images), images.shape[2:], seed + images_before)
        maps |= {name: without_knowledge[name] for name in baselines}
        found = _measure(model, inputs, labels, maps, steps, percentiles, seed + images_before)
        if masks is not None:
            for name, of_images in maps.items():
                found[name] |= _on_objects(of_images, masks[images_before : images_before + len(images)])
        for name, of_measures in found.items():
            for measure, value in of_measures.items():
                values.setdefault(name, {}).setdefault(measure, []).append(value)
        images_before += len(images)
    if not values:
        raise ValueError('There are no images.')
    return {name: {key: torch.cat(parts) for key, parts in found.items()} for name, found in values.items()}


def _predict(
    model: BaseModel, inputs: Tensor, layers: Sequence[str] | None, reductions: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits (N, classes), and by name the maps (N, H, W) at the size of the input."""
    with torch.no_grad(), record_attention(model, layers) as recorded:
        logits = class_scores(model, inputs)
    maps = {}
    from ..visualization import reduce_channels, spatial_maps

    for name, attention in spatial_maps(model, recorded, tuple(inputs.shape[2:])).items():
        attention = attention.unflatten(0, (-1, len(inputs))).mean(0)  # Monte-Carlo passes run side by side
        for reduction in reductions if attention.shape[1] > 1 else reductions[:1]:
            resized = torch.nn.functional.interpolate(
                reduce_channels(attention, reduction), inputs.shape[2:], mode='bilinear', align_corners=False
            )
            several = len(reductions) > 1 and attention.shape[1] > 1
            maps[f'{name}, {reduction}' if several else name] = resized[:, 0].cpu()
    return logits, maps


def _measure(
    model: BaseModel,
    inputs: Tensor,
    labels: Tensor,
    maps: Mapping[str, Tensor],
    steps: int,
    percentiles: Sequence[int],
    seed: int,
) -> dict[str, dict[str, Tensor]]:
    logits = partial(model, mode='tensor')

    def probability(images: Tensor) -> Tensor:
        return logits(images).softmax(1).gather(1, labels[:, None])[:, 0]

    steps = min(steps, math.prod(inputs.shape[2:]))
    found = {}
    for name, attention in maps.items():
        found[name] = deletion_and_insertion(probability, inputs, attention, steps, seed) if steps else {}
        if percentiles:
            found[name]['road'] = road(logits, inputs, attention, labels, percentiles, seed)
    return found


def _on_objects(maps: Tensor, masks: Sequence[np.ndarray | None]) -> dict[str, Tensor]:
    """Pointing game and overlap, of the images whose object is known."""
    known = [(attention, mask) for attention, mask in zip(maps, masks) if mask is not None]
    pointing = torch.tensor([float(pointing_game(*pair)) for pair in known])
    return dict(pointing=pointing, overlap=torch.tensor([mask_iou(*pair) for pair in known]))
