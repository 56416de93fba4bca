"""Figures of attention maps."""

import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import matplotlib
import matplotlib.ticker
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..models.layers import (
    AttentionModule,
    TransformerMap,
    attention_maps,
    attention_rollout,
    record_attention,
)
from .overlay import COLOURS, check_picture, resize_map
from .text import plain_text

REDUCTIONS = ('strongest', 'mean', 'max')  # the first is the default everywhere
SUFFIXES = ('.png', '.svg', '.pdf')


def reduce_channels(maps: Tensor, reduction: str = REDUCTIONS[0]) -> Tensor:
    """One map per image of many channels.

    Args:
        maps (Tensor): Attention (N, C, H, W).
        reduction (str): The ``'strongest'`` channel, which varies most over positions; or the ``'mean'`` or ``'max'``
            over the channels. The mean of a mask of the Residual Attention Network is no map of the evidence: it shows
            how open all gates are. Defaults to ``'strongest'``.

    Returns:
        Tensor: Attention (N, 1, H, W).

    Raises:
        ValueError: If the reduction is another one.
    """
    if reduction == 'mean':
        return maps.mean(1, keepdim=True)
    if reduction == 'max':
        return maps.amax(1, keepdim=True)
    if reduction == 'strongest':
        return strongest_channels(maps, 1)[0]
    raise ValueError(f'reduction is one of {list(REDUCTIONS)}, not {reduction!r}.')


def strongest_channels(maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The channels of each image whose attention varies most over positions, the strongest first.

    Args:
        maps (Tensor): Attention (N, C, H, W).
        count (int): How many, from 1; of maps with fewer channels all.

    Returns:
        Tuple[Tensor, Tensor]: Attention (N, count, H, W), and numbers (N, count) of the channels, from 0.
    """
    if count < 1:
        raise ValueError(f'count is at least 1, not {count}.')
    channels = maps.flatten(2).var(-1, unbiased=False).topk(min(count, maps.shape[1])).indices
    return maps.take_along_dim(channels[:, :, None, None], 1), channels


def pairwise_attention(
    maps: Tensor,
    shape: tuple[int, int],
    query: tuple[float, float] | None = None,
    *,
    extra_tokens: int | None = 0,
    class_token: bool = True,
) -> Tensor:
    """Where the queries of self-attention look.

    Queries and keys are numbered row by row over grids that are the input divided by a stride; the stride is what gives
    their numbers. So keys may be pooled (:class:`~mmresattn.models.layers.NonLocalAttention`), or queries and keys both
    (:class:`~mmresattn.models.layers.AttentionAugmentedConv`).

    Args:
        maps (Tensor): Attention (N, heads, Q, K).
        shape (Tuple[int, int]): Height and width of the network's input.
        query (Tuple[float, float], optional): Row and column in that input, in pixels from its upper and left edges:
            the query whose cell they are in is taken. Defaults to the class token, if there is one, and otherwise to
            the mean over all positions.
        extra_tokens (int, optional): How many tokens of a transformer stand before those of positions; None for the
            smallest number that leaves a grid. Defaults to 0.
        class_token (bool): Whether the first of them is the class token. Defaults to True.

    Returns:
        Tensor: Attention (N, heads, h, w) over the keys that have positions.

    Raises:
        ValueError: If the numbers of queries and keys fit no stride, or the query is outside.
    """
    extra = _extra_tokens(maps.shape[2], shape) if extra_tokens is None else extra_tokens
    grid = _grid(maps.shape[2] - extra, shape)
    over_keys = _grid(maps.shape[3] - extra, grid)
    if query is None:
        rows = maps[:, :, :1] if extra and class_token else maps[:, :, extra:]
        return rows[..., extra:].mean(2).unflatten(2, over_keys)
    if not all(0 <= place < size for place, size in zip(query, shape)):
        raise ValueError(f'The query {tuple(query)} is outside of what the network sees, {shape[0]}x{shape[1]} pixels.')
    row, column = (int(place * cells / size) for place, cells, size in zip(query, grid, shape))
    return maps[:, :, extra + row * grid[1] + column, extra:].unflatten(2, over_keys)


def spatial_maps(
    model: nn.Module, maps: Mapping[str, Tensor], shape: tuple[int, int], query: tuple[float, float] | None = None
) -> dict[str, Tensor]:
    """Of the recorded maps those that have positions, as maps over the network's input.

    Args:
        model (nn.Module): The model.
        maps (Mapping[str, Tensor]): From :func:`~mmresattn.models.layers.record_attention`.
        shape (Tuple[int, int]): Height and width of the network's input.
        query (Tuple[float, float], optional): As for :func:`pairwise_attention`.

    Returns:
        Dict[str, Tensor]: Maps (N, C, h, w), float32; of self-attention a channel for each head. One number a channel,
        as of Squeeze-and-Excitation, has no positions and is left out. If the maps are of all layers of a transformer
        whose layers have the same tokens, ``'rollout'`` (N, 1, h, w) is their
        :func:`~mmresattn.models.layers.attention_rollout`.
    """
    taps = attention_maps(model)
    tokens = {name: dict(extra_tokens=tap.extra_tokens, class_token=tap.class_token) for name, tap in taps.items()}
    spatial = {}
    for name, attention in maps.items():
        if taps[name].kind == 'pairwise':
            attention = pairwise_attention(attention, shape, query, **tokens[name])
        if taps[name].kind != 'channel':
            spatial[name] = attention.float()
    layers = [name for name, tap in taps.items() if isinstance(tap, TransformerMap)]
    sizes = {tuple(maps[name].shape[2:]) for name in layers if name in maps}
    if len(layers) > 1 and set(layers) <= set(maps) and len(sizes) == 1 and len(set(*sizes)) == 1:
        rollout = attention_rollout([maps[name].float() for name in layers])[:, None]
        spatial['rollout'] = pairwise_attention(rollout, shape, query, **tokens[layers[0]])
    return spatial


def _extra_tokens(positions: int, shape: tuple[int, int]) -> int:
    """The smallest number of tokens without a position that leaves a grid; 0 if none does."""
    for extra in range(min(positions, 9)):
        try:
            _grid(positions - extra, shape)
        except ValueError:
            continue
        return extra
    return 0


def _grid(positions: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width of so many positions, if they are all of an input, or one in every so many."""
    height, width = shape
    for stride in range(1, max(shape) + 1):
        # Convolutions and averages round sizes up, max pooling of 2x2 rounds down.
        for grid in ((-(-height // stride), -(-width // stride)), (height // stride, width // stride)):
            if grid[0] * grid[1] == positions:
                return grid
    raise ValueError(f'{positions} positions are no grid over {height}x{width} at any stride.')


@contextmanager
def record_mask_steps(model: nn.Module, names: Sequence[str] | None = None) -> Iterator[dict[str, tuple[Tensor, ...]]]:
    """Record what the masks of Residual Attention Networks do: the features before, the mask, the features after.

    As in figure 1 of the paper: the trunk ``T``, the soft mask ``M`` and ``(1 + M) * T``, or ``M * T`` without
    attention residual learning.

    Args:
        model (nn.Module): Any bare model with :class:`~mmresattn.models.layers.AttentionModule` in it.
        names (Sequence[str], optional): Names of maps, as for :func:`~mmresattn.models.layers.record_attention`.
            Defaults to those of all attention modules.

    Yields:
        Dict[str, Tuple[Tensor, Tensor, Tensor]]: By name of the map, filled when a forward pass ends: three tensors
        (N, C, H, W), detached.

    Raises:
        KeyError: If a name is unknown.
        ValueError: If a name is of no attention module, or there is none.
    """
    modules = {f'{name}.map': module for name, module in model.named_modules() if isinstance(module, AttentionModule)}
    wanted = list(modules if names is None else attention_maps(model, names))
    others = [name for name in wanted if name not in modules]
    if others or not wanted:
        raise ValueError(
            f'Features before and after a mask are of the attention modules of Residual Attention Networks; this model '
            f'has {list(modules) or "none"}{f", and {others} are others" if others else ""}.'
        )
    before, after, steps = {}, {}, {}

    def keep(kept: dict, name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor | None = None) -> None:
            # A copy, as what follows may work in place.
            kept[name] = (args[0] if output is None else output).detach().clone()

        return hook

    with record_attention(model, wanted) as masks, ExitStack() as hooks:

        def fill(*_) -> None:
            steps.update({name: (before[name], masks[name], after[name]) for name in wanted if name in masks})

        for name in wanted:
            hooks.enter_context(modules[name].trunk.register_forward_hook(keep(before, name)))
            hooks.enter_context(modules[name].after.register_forward_pre_hook(keep(after, name)))
        hooks.enter_context(model.register_forward_hook(fill))
        yield steps


def attention_figure(
    images: Sequence[np.ndarray], maps: Mapping[str, Sequence[Tensor | np.ndarray]], titles: Sequence[str] = ()
) -> Figure:
    """A grid with one row per image: first the image, then its map in each module, laid over it.

    Colours span the range of a module's maps, from the least attention (dark) to the most (bright).

    Args:
        images (Sequence[np.ndarray]): N pictures (H, W, 3), uint8 in RGB, of any sizes.
        maps (Mapping[str, Sequence]): By module its N maps, (h, w) or (1, h, w), of any sizes; NaN stays bare.
        titles (Sequence[str], optional): A title for each image.

    Returns:
        Figure: For :func:`save_figure`.
    """
    heights = [image.shape[0] / image.shape[1] for image in images]
    height = 1.5 * sum(min(2.0, max(0.5, height)) for height in heights) + 0.6
    figure = Figure(figsize=(1.5 * (1 + len(maps)), height), layout='constrained')
    axes = figure.subplots(len(images), 1 + len(maps), squeeze=False, height_ratios=heights)
    for row, image in zip(axes, images):
        row[0].imshow(image)
    for row, title in zip(axes, titles):
        _write(row[0].set_ylabel, title, width=20)
    for column, (name, attention) in enumerate(maps.items(), 1):
        _write(axes[0, column].set_title, short_name(name).replace('.', '\n', 1))
        attention = [torch.as_tensor(values).detach().cpu() for values in attention]
        known = torch.cat([values[values.isfinite()] for values in attention])
        for row, image, step in zip(axes, images, attention):
            resized = resize_map(step.reshape(step.shape[-2:]), image.shape[:2])
            row[column].imshow(image)
            shown = row[column].imshow(
                resized, cmap=COLOURS, alpha=0.75, vmin=known.min().item(), vmax=known.max().item()
            )
        figure.colorbar(shown, ax=axes[:, column], location='bottom', pad=0.02).ax.tick_params(labelsize=6)
    _no_ticks(axes)
    return figure


def map_grid(
    image: np.ndarray,
    maps: Mapping[str, Tensor | np.ndarray],
    *,
    title: str = '',
    columns: int | None = None,
    query: tuple[float, float] | None = None,
    predicted: np.ndarray | None = None,
) -> Figure:
    """One image and its maps, of any number of modules: each laid over it, with its name and its own bar of colours.

    Args:
        image (np.ndarray): Picture (H, W, 3), uint8 in RGB.
        maps (Mapping[str, Tensor | np.ndarray]): By name a map (h, w) of any size; NaN stays bare.
        title (str): Text over the image. Defaults to none.
        columns (int, optional): Panels in a row. Defaults to 5, or as many as make the grid about square.
        query (Tuple[float, float], optional): Row and column of the image to mark with a cross, for self-attention.
        predicted (np.ndarray, optional): What to show in place of the bare image in the first panel, such as boxes on
            it. Defaults to the image.

    Returns:
        Figure: For :func:`save_figure`.

    Raises:
        ValueError: If image or maps have another shape.
    """
    check_picture(image)
    panels = 1 + len(maps)
    rows = math.ceil(panels / (columns or max(5, math.ceil(math.sqrt(panels)))))
    columns = columns or math.ceil(panels / rows)
    height, width = image.shape[:2]
    panel = 1.9 * min(2.0, max(0.5, height / width)) + 0.6  # with name and bar
    figure = Figure(figsize=(1.9 * columns, panel * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    axes.flat[0].imshow(image if predicted is None else predicted)
    _write(axes.flat[0].set_title, title)
    for axis, (name, attention) in zip(axes.flat[1:], maps.items()):
        _write(axis.set_title, short_name(name))
        axis.imshow(image)
        _show(figure, axis, resize_map(attention, image.shape[:2]), alpha=0.75)
    for axis in axes.flat[:panels]:
        if query is not None:
            axis.plot(query[1] - 0.5, query[0] - 0.5, '+', color='cyan', markersize=9, markeredgewidth=1.5)
    for axis in axes.flat[panels:]:
        axis.axis('off')
    _no_ticks(axes)
    return figure


def mask_figure(image: np.ndarray, steps: Mapping[str, tuple[Tensor | np.ndarray, ...]], *, title: str = '') -> Figure:
    """Before, mask, after: the panels of figure 1 of the paper, a row for each module or channel.

    Before and after share their colours, so that they can be compared.

    Args:
        image (np.ndarray): Picture (H, W, 3), uint8 in RGB.
        steps (Mapping[str, Tuple]): By name the features before, the mask and the features after, (h, w) each, such as
            one channel of :func:`record_mask_steps`.
        title (str): Text over the image. Defaults to none.

    Returns:
        Figure: For :func:`save_figure`.

    Raises:
        ValueError: If image or maps have another shape.
    """
    check_picture(image)
    height, width = image.shape[:2]
    panel = 1.9 * min(2.0, max(0.5, height / width)) + 0.45
    figure = Figure(figsize=(4 * 2.2, panel * len(steps) + 0.3), layout='constrained')
    axes = figure.subplots(len(steps), 4, squeeze=False)
    for axis, text in zip(axes[0], (title or 'image', 'features before', 'soft mask', 'features after')):
        _write(axis.set_title, text, 9)
    for row, (name, (before, mask, after)) in zip(axes, steps.items()):
        row[0].imshow(image)
        _write(row[0].set_ylabel, short_name(name))
        before, mask, after = (resize_map(step, image.shape[:2]) for step in (before, mask, after))
        both = np.stack([before, after])
        features = dict(vmin=np.nanmin(both), vmax=np.nanmax(both))
        _show(figure, row[1], before, **features)
        _show(figure, row[2], mask)
        _show(figure, row[3], after, **features)
    _no_ticks(axes)
    return figure


def short_name(name: str) -> str:
    """A module's name as a label: without ``backbone.`` and ``.map``, which all have."""
    return re.sub(r'\.map\b', '', name.removeprefix('backbone.'))


def save_figure(figure: Figure, path: str | Path, dpi: int = 200) -> None:
    """Write a figure by the suffix of its file, SVG and PDF with text as text.

    Args:
        figure (Figure): The figure.
        path (str | Path): PNG, SVG or PDF; its folder is made.
        dpi (int): Dots an inch, of images within SVG and PDF, too. Defaults to 200.

    Raises:
        ValueError: If the suffix is another one.
    """
    path = check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({'svg.fonttype': 'none', 'pdf.fonttype': 42}):
        figure.savefig(path, dpi=dpi)


def check_suffix(path: str | Path) -> Path:
    """Return the path of a figure, or raise a ValueError before it is made if its suffix is not one of ``SUFFIXES``."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f'A figure is written as {", ".join(SUFFIXES)}, by the suffix; not {path}.')
    return path


def _write(write: Callable, text: str, size: int = 8, width: int | None = None) -> None:
    text, how = plain_text(text)
    write(textwrap.fill(text, width) if width else text, fontsize=size, **how)


def _show(figure: Figure, axis: Axes, attention: np.ndarray, **kwargs) -> None:
    shown = axis.imshow(attention, cmap=COLOURS, **kwargs)
    aspect = attention.shape[0] / attention.shape[1]
    place = axis.inset_axes([0.03, -0.13 / aspect, 0.94, 0.06 / aspect])  # as far below images of any shape
    bar = figure.colorbar(shown, cax=place, orientation='horizontal')
    bar.ax.tick_params(labelsize=6)
    bar.locator = matplotlib.ticker.MaxNLocator(4)
    bar.update_ticks()


def _no_ticks(axes: np.ndarray) -> None:
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
