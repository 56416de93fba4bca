"""Attention maps of the same few images, again and again while a network trains."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.utils import get_ori_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..models.layers import attention_maps
from ..utils import random_state

SIDE = 128  # smaller images are shown enlarged


@HOOKS.register_module()
class AttentionVisualizationHook(Hook):
    """Writes maps of fixed validation images to MMEngine's visualiser, so that one sees attention form.

    The pictures go wherever the visualiser writes: with ``LocalVisBackend`` to ``vis_data/vis_image`` of the run, with
    ``TensorboardVisBackend`` to TensorBoard. There is one for each map: the images side by side, below each the map
    over it, and below these the range that the colours span. The images are as the validation pipeline gives them, and
    are read once.

    A run with this hook ends with the weights of one without, bit for bit: the network runs in evaluation mode without
    gradients, and afterwards its modes and all random states are as they were. Only the main process draws.

    The hook never stops a training. What it cannot draw (no such map or image, no validation set, a model that is
    divided among processes, a full disk) becomes one warning in the log, if possible when the training starts, and the
    hook draws nothing from then on.

    Args:
        interval (int): Draw at the end of every so many epochs (or iterations). Defaults to 1.
        by_epoch (bool): Whether ``interval`` counts epochs; False for training by iterations. Defaults to True.
        images (int | Sequence[int]): Indices of the images in the validation set, or how many to draw by ``seed``.
            Defaults to 4.
        layers (Sequence[str], optional): Names of the maps, as for
            :func:`~mmresattn.models.layers.record_attention`. Defaults to all that have positions.
        reduction (str): Of the channels or heads: ``'strongest'``, ``'mean'`` or ``'max'``. Defaults to
            ``'strongest'``.
        seed (int): Of the choice of images. Defaults to 0.

    Raises:
        ValueError: If ``interval`` is below 1.
    """

    priority = 'LOW'  # after whatever the epoch changes

    def __init__(
        self,
        interval: int = 1,
        by_epoch: bool = True,
        images: int | Sequence[int] = 4,
        layers: Sequence[str] | None = None,
        reduction: str = 'strongest',
        seed: int = 0,
    ) -> None:
        if interval < 1:
            raise ValueError(f'interval is at least 1, not {interval}.')
        self.interval = interval
        self.by_epoch = by_epoch
        self.images = images
        self.layers = layers
        self.reduction = reduction
        self.seed = seed

    def before_train(self, runner: Runner) -> None:
        """Choose and read the images, and check what would fail in the midst of a training."""
        self.draws = is_main_process()
        if self.draws:
            with self._only_warning(runner):
                self._prepare(runner)

    def _prepare(self, runner: Runner) -> None:
        from ..visualization import REDUCTIONS, data_set_sample  # with it comes Matplotlib

        if self.reduction not in REDUCTIONS:
            raise ValueError(f'reduction is one of {list(REDUCTIONS)}, not {self.reduction!r}.')
        if is_model_wrapper(runner.model) and not isinstance(runner.model, DistributedDataParallel):
            raise ValueError(
                'AttentionVisualizationHook draws in one process, which needs the whole model; this one is divided '
                f'among them by {type(runner.model).__name__}. Take the hook out, or use DDP.'
            )
        kinds = {tap.kind for tap in attention_maps(get_ori_model(runner.model), self.layers).values()}
        if kinds <= {'channel'}:
            raise ValueError(
                f'AttentionVisualizationHook draws maps with positions; this model has {kinds or "no"} maps.'
            )
        if runner.val_loop is None:
            raise ValueError('AttentionVisualizationHook takes its images from the val_dataloader, and there is none.')
        with _random_state_kept():
            dataset = runner.val_loop.dataloader.dataset
            chosen = self.images
            if isinstance(chosen, int):
                count = min(chosen, len(dataset))
                chosen = sorted(np.random.default_rng(self.seed).choice(len(dataset), count, replace=False).tolist())
            if not chosen or not all(0 <= index < len(dataset) for index in chosen):
                raise IndexError(f'images are of 0 to {len(dataset) - 1}, and at least one; not {chosen}.')
            self.samples = [data_set_sample(dataset, index) for index in chosen]

    def after_train_epoch(self, runner: Runner) -> None:
        """Draw, if it is time."""
        if self.draws and self.by_epoch and self.every_n_epochs(runner, self.interval):
            with self._only_warning(runner):
                self._draw(runner, runner.epoch + 1)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Draw, if it is time."""
        if self.draws and not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            with self._only_warning(runner):
                self._draw(runner, runner.iter + 1)

    @contextmanager
    def _only_warning(self, runner: Runner) -> Iterator[None]:
        """Turn an error into a warning, after which nothing is drawn."""
        try:
            yield
        except Exception as error:
            self.draws = False
            message = error.args[0] if isinstance(error, KeyError) and error.args else error
            runner.logger.warning(
                f'AttentionVisualizationHook draws nothing from now on: {type(error).__name__}: {message}'
            )

    def _draw(self, runner: Runner, step: int) -> None:
        from ..visualization import place_maps, record_samples, short_name, show_image

        model = get_ori_model(runner.model)
        pictures, maps = [], {}
        with _random_state_kept(), _evaluated(model):
            for sample in copy.deepcopy(self.samples):  # one by one: detectors' images differ in size
                record_samples(model, [sample], self.layers, mode='tensor')
                pictures.append(show_image(sample.image))
                for name, attention in place_maps(model, sample, self.reduction).items():
                    maps.setdefault(name, []).append(attention)
        for name, of_images in maps.items():
            runner.visualizer.add_image(f'attention_{short_name(name)}', _mosaic(pictures, of_images), step)


def _mosaic(images: Sequence[np.ndarray], maps: Sequence[Tensor]) -> np.ndarray:
    """Images in a row, their maps over them in a second one, and the range of the colours."""
    from ..visualization import overlay

    low, high = min(attention.min().item() for attention in maps), max(attention.max().item() for attention in maps)
    columns = []
    for image, attention in zip(images, maps):
        times = -(-SIDE // min(image.shape[:2]))
        image = image.repeat(times, 0).repeat(times, 1)
        columns.append(np.concatenate([image, overlay(image, attention, low=low, high=high)]))
    height = max(column.shape[0] for column in columns)
    padded = [
        np.pad(column, ((0, height - column.shape[0]), (2, 2), (0, 0)), constant_values=255) for column in columns
    ]
    strip = np.full((20, sum(column.shape[1] for column in padded), 3), 255, np.uint8)
    scale = f'{low:.3g} (dark) to {high:.3g} (bright)'
    cv2.putText(strip, scale, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([np.concatenate(padded, 1), strip])


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards the mode that each module had: some are frozen."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _random_state_kept() -> Iterator[None]:
    restore = random_state()
    with torch.random.fork_rng():  # of accelerators, too
        try:
            yield
        finally:
            restore()
