"""The figure of Show, Attend and Tell: a photograph, and once more for each word, lit where the network looks."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from .overlay import check_picture, resize_map
from .text import plain_text


def caption_figure(
    image: np.ndarray,
    words: Sequence[str],
    maps: Tensor | np.ndarray,
    gates: Sequence[float] | None = None,
    columns: int = 5,
) -> Figure:
    """One panel for the photograph and one for each word, as figures 2 and 3 of the paper.

    Each map is enlarged to the photograph and smoothed by a Gaussian as wide as a cell of the map. White shows where it
    is high, from its own least to its own greatest value.

    Args:
        image (np.ndarray): Picture (H, W, 3), uint8 in RGB.
        words (Sequence[str]): T words.
        maps (Tensor | np.ndarray): Their maps (T, h, w) over the whole picture.
        gates (Sequence[float], optional): The gate of each word in (0, 1), written behind it. Defaults to none.
        columns (int): Panels in a row. Defaults to 5.

    Returns:
        Figure: For :func:`save_figure`.

    Raises:
        ValueError: If there are not as many maps as words, or the image is of another shape.
    """
    check_picture(image)
    if len(maps) != len(words):
        raise ValueError(f'There are {len(words)} words and {len(maps)} maps.')
    columns = min(columns, 1 + len(words))
    rows = math.ceil((1 + len(words)) / columns)
    height, width = image.shape[:2]
    figure = Figure(figsize=(2 * columns, (2 * height / width + 0.3) * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    axes.flat[0].imshow(image)
    for i, (axis, word) in enumerate(zip(axes.flat[1:], words)):
        text, how = plain_text(word if gates is None else f'{word} ({float(gates[i]):.2f})')
        axis.set_title(text, fontsize=9, **how)
        axis.imshow(image)
        axis.imshow(_smooth(maps[i], (height, width)), cmap='gray', alpha=0.8)
    for axis in axes.flat:
        axis.axis('off')
    return figure


def _smooth(attention: Tensor | np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    resized = torch.as_tensor(resize_map(attention, shape)).float()
    sides = shape[::-1]  # width first
    sigma = [max(side / cells, 1e-3) for side, cells in zip(sides, attention.shape[::-1])]
    kernel = [min(2 * math.ceil(2 * width) + 1, side - (side + 1) % 2) for width, side in zip(sigma, sides)]
    return gaussian_blur(resized[None, None], kernel, sigma)[0, 0].cpu().numpy()
