"""A map laid over its image."""

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from torch import Tensor


def overlay(
    image: np.ndarray,
    attention: Tensor | np.ndarray,
    *,
    low: float | None = None,
    high: float | None = None,
    alpha: float = 0.6,
) -> np.ndarray:
    """Lay a map over an image, at the size of the image.

    The colours are those of Matplotlib's 'inferno', which a reader also tells apart in grey: from ``low`` (dark) to
    ``high`` (bright); values beyond get the colours of the ends. Where the map is NaN the image stays as it is.

    Args:
        image (np.ndarray): Image (H, W, 3), uint8 in RGB.
        attention (Tensor | np.ndarray): Map (h, w) of any size; it is resized bilinearly.
        low (float, optional): Value of the darkest colour. Defaults to the least of the map.
        high (float, optional): Value of the brightest colour. Defaults to the greatest of the map.
        alpha (float): Share of the colours in the picture, from 0 to 1. Defaults to 0.6.

    Returns:
        np.ndarray: Picture (H, W, 3), uint8 in RGB.

    Raises:
        ValueError: If image or map have another shape or type, if the map has no finite value, or ``alpha`` is not from
            0 to 1.
    """
    check_image(image)
    if not 0 <= alpha <= 1:
        raise ValueError(f'alpha is from 0 to 1, not {alpha}.')
    resized = resize_map(attention, image.shape[:2])
    finite = resized[np.isfinite(resized)]
    if not finite.size:
        raise ValueError('The map has no finite value: there is nothing to show.')
    low = finite.min() if low is None else low
    high = finite.max() if high is None else high
    shade = (resized - low) / (high - low if high > low else 1)  # a constant map is dark
    colours = colormaps['inferno'](np.nan_to_num(shade).clip(0, 1))[..., :3] * 255
    share = np.where(np.isnan(resized), 0, alpha)[..., None]
    return np.rint((1 - share) * image + share * colours).astype(np.uint8)


def resize_map(attention: Tensor | np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map (h, w) at another size (H, W), as it lies on an image of that size: bilinear, ``align_corners=False``.

    Args:
        attention (Tensor | np.ndarray): Map (h, w).
        shape (Tuple[int, int]): Height H and width W.

    Returns:
        np.ndarray: Map (H, W), float32.

    Raises:
        ValueError: If the map is not of two dimensions.
    """
    attention = torch.as_tensor(attention).detach().float().cpu()
    if attention.dim() != 2 or not attention.numel():
        raise ValueError(
            f'A map to draw is (height, width); got {tuple(attention.shape)}. reduce_channels and pairwise_attention '
            'make such of maps with channels or pairs.'
        )
    if attention.shape == shape:
        return attention.numpy()
    return F.interpolate(attention[None, None], shape, mode='bilinear', align_corners=False)[0, 0].numpy()


def check_image(image: np.ndarray) -> None:
    """Make sure that an array is an image (H, W, 3), uint8.

    Raises:
        ValueError: If it is not.
    """
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        got = f'{image.dtype} of {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f'An image is a NumPy array (height, width, 3) of uint8 in RGB; got {got}.')
