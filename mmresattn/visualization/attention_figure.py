"""Figures of attention maps."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor


def reduce_channels(maps: Tensor, reduction: str = 'mean') -> Tensor:
    """One map an image of many channels.

    Args:
        maps (Tensor): Attention (N, C, H, W).
        reduction (str): ``'mean'`` over the channels, or the ``'strongest'`` channel: the one whose attention varies
            most over positions, as a mask that is constant says nothing. Defaults to ``'mean'``.

    Returns:
        Tensor: Attention (N, 1, H, W).

    Raises:
        ValueError: If the reduction is another one.
    """
    if reduction == 'mean':
        return maps.mean(1, keepdim=True)
    if reduction == 'strongest':
        strongest = maps.flatten(2).var(-1).argmax(1)  # N
        return maps[range(len(maps)), strongest][:, None]
    raise ValueError(f"reduction is 'mean' or 'strongest', not {reduction!r}.")


def attention_figure(images: Sequence[np.ndarray], maps: Mapping[str, Tensor], titles: Sequence[str] = ()) -> Figure:
    """A grid: one row an image, first the image, then its map in each module, resized to it and laid over it.

    Colours span the range of a module's maps, from its least attention (dark) to its most (bright).

    Args:
        images (Sequence[np.ndarray]): N images (H, W, 3), uint8 in RGB.
        maps (Mapping[str, Tensor]): For each module its maps (N, 1, h, w).
        titles (Sequence[str], optional): A title for each image.

    Returns:
        Figure: For ``figure.savefig(path)``.
    """
    figure = Figure(figsize=(1.5 * (1 + len(maps)), 1.5 * len(images) + 0.6), layout='constrained')
    axes = figure.subplots(len(images), 1 + len(maps), squeeze=False)
    for row, image in zip(axes, images):
        row[0].imshow(image)
    for row, title in zip(axes, titles):
        row[0].set_ylabel(title, fontsize=8)
    for column, (name, attention) in enumerate(maps.items(), 1):
        axes[0, column].set_title(name.removeprefix('backbone.').replace('.', '\n', 1), fontsize=8)
        low, high = attention.min().item(), attention.max().item()
        for row, image, one in zip(axes, images, attention):
            resized = F.interpolate(one[None], image.shape[:2], mode='bilinear', align_corners=False)[0, 0].numpy()
            row[column].imshow(image)
            shown = row[column].imshow(resized, cmap='inferno', alpha=0.75, vmin=low, vmax=high)
        figure.colorbar(shown, ax=axes[:, column], location='bottom', pad=0.02).ax.tick_params(labelsize=6)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure
