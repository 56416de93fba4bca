"""How an image is shown, and a map laid over it."""

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from torch import Tensor

COLOURS = 'inferno'  # which a reader also tells apart in grey
GREY = 128


def colour_table(name: str = COLOURS) -> np.ndarray:
    """The colours (256, 3) of a map from its least to its greatest value, uint8 in RGB.

    Args:
        name (str): A colour map of Matplotlib. Defaults to 'inferno'.
    """
    return np.rint(255 * colormaps[name](np.arange(256))[:, :3]).astype(np.uint8)


def check_image_array(image: np.ndarray) -> None:
    """Raise a ValueError if an array can be no image (H, W) or (H, W, C)."""
    if not (isinstance(image, np.ndarray) and image.ndim in (2, 3) and image.size and image.dtype.kind in 'buif'):
        got = f'{image.dtype} of {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f'An image is a NumPy array (height, width) or (height, width, channels); got {got}.')


def show_image(image: np.ndarray) -> np.ndarray:
    """An image of any number of channels and any depth, as a picture.

    Channels: one is grey; three are BGR, as OpenCV reads them; of more, the first three are shown, and of two the
    first.

    Values: bytes stay as they are. Other numbers, if none is negative, are divided by the smallest of 1 (floating-point
    numbers alone), 255, 4095 and 65535 that none exceeds. If there are negative or larger ones, the range from the
    least to the greatest is shown from black to white. Numbers that are not finite are black.

    Args:
        image (np.ndarray): Image (H, W) or (H, W, C).

    Returns:
        np.ndarray: Picture (H, W, 3), uint8 in RGB.

    Raises:
        ValueError: If it is no image.
    """
    check_image_array(image)
    image = image[..., None] if image.ndim == 2 else image
    image = image[..., :1] if image.shape[2] < 3 else image[..., 2::-1]
    if image.dtype != np.uint8:
        whole = image.dtype.kind in 'ui'
        image = np.nan_to_num(image.astype(np.float32), posinf=0, neginf=0)
        low, high = image.min(), image.max()
        scale = next((top for top in (1, 255, 4095, 65535) if high <= top and not (whole and top == 1)), None)
        if low >= 0 and scale:
            low, high = 0, scale
        image = np.rint((image - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def overlay(
    image: np.ndarray,
    attention: Tensor | np.ndarray,
    *,
    low: float | None = None,
    high: float | None = None,
    alpha: float = 0.6,
) -> np.ndarray:
    """Lay a map over an image, at the size of the image.

    The colours are those of Matplotlib's 'inferno', from ``low`` (dark) to ``high`` (bright); values beyond get the
    colours of the ends. Where the map is NaN the image stays as it is.

    Args:
        image (np.ndarray): Picture (H, W, 3), uint8 in RGB: :func:`show_image` makes one of any image.
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
    check_picture(image)
    if not 0 <= alpha <= 1:
        raise ValueError(f'alpha is from 0 to 1, not {alpha}.')
    attention = torch.as_tensor(attention).detach().float().cpu()
    known = attention[attention.isfinite()]
    if not known.numel():
        raise ValueError('The map has no finite value: there is nothing to show.')
    low = known.min().item() if low is None else low
    high = known.max().item() if high is None else high
    resized = resize_map(attention, image.shape[:2])
    shade = (resized - low) / (high - low if high > low else 1)  # a constant map is dark
    colours = (alpha * colour_table()).astype(np.float32)
    index = (np.nan_to_num(shade) * 256).clip(0, 255).astype(np.uint8)
    picture = np.rint((1 - alpha) * image.astype(np.float32) + colours[index]).astype(np.uint8)
    return np.where(np.isnan(resized)[..., None], image, picture)


def behind_gate(picture: np.ndarray, gate: Tensor) -> np.ndarray:
    """A picture (H, W, 3) in which what a gate (H, W) hides is grey; NaN hides nothing."""
    shown = gate.nan_to_num(1.0).clamp(0, 1)[..., None].cpu().numpy()
    return np.rint(shown * picture + (1 - shown) * GREY).astype(np.uint8)


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
            'make such maps of those with channels or pairs.'
        )
    if attention.shape != tuple(shape):
        attention = F.interpolate(attention[None, None], tuple(shape), mode='bilinear', align_corners=False)[0, 0]
    return attention.cpu().numpy()


def check_picture(image: np.ndarray) -> None:
    """Raise a ValueError if an array is no picture (H, W, 3), uint8."""
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        got = f'{image.dtype} of {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f'A picture is a NumPy array (height, width, 3) of uint8 in RGB; got {got}.')
