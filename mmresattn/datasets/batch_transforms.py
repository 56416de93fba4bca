"""Random augmentation of whole batches (N, C, H, W) of pixels in 0..255, on the device where they are.

Every image of the batch gets its own draw. The draws are PyTorch's, which ``ReplayHook`` seeds by the iteration.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmengine.registry import TRANSFORMS
from torch import Tensor


def _check_share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f'{name} is from 0 to 1, not {value!r}.')


@TRANSFORMS.register_module()
class BatchRandomCrop:
    """Crops of the images' own size from images with a black border, as MMPretrain's ``RandomCrop`` with padding.

    Args:
        padding (int): Width of the border in pixels, at least 0. Defaults to 4.
    """

    def __init__(self, padding: int = 4) -> None:
        self.padding = padding

    def __call__(self, images: Tensor) -> Tensor:
        n, channels, height, width = images.shape
        draw = torch.randint(2 * self.padding + 1, (2, n, 1), device=images.device)
        rows = draw[0] + torch.arange(height, device=images.device)  # N, H
        columns = draw[1] + torch.arange(width, device=images.device)  # N, W
        padded = F.pad(images, [self.padding] * 4)
        pixels = (rows[:, :, None] * padded.shape[3] + columns[:, None]).view(n, 1, -1)  # N, 1, H * W
        return padded.flatten(2).gather(2, pixels.expand(-1, channels, -1)).view_as(images)


@TRANSFORMS.register_module()
class BatchRandomFlip:
    """Mirrors images left to right.

    Args:
        prob (float): For each image. Defaults to 0.5.
    """

    def __init__(self, prob: float = 0.5) -> None:
        _check_share(prob=prob)
        self.prob = prob

    def __call__(self, images: Tensor) -> Tensor:
        flip = torch.rand(len(images), 1, 1, 1, device=images.device) < self.prob
        return torch.where(flip, images.flip(3), images)


@TRANSFORMS.register_module()
class BatchRandomErasing:
    """Fills a rectangle of an image with one colour, as MMPretrain's ``RandomErasing`` (arXiv:1708.04896, RE-M).

    Args:
        erase_prob (float): For each image. Defaults to 0.5.
        min_area_ratio (float): Smallest share of the image. Defaults to 0.02.
        max_area_ratio (float): Largest share of the image. Defaults to 0.4.
        aspect_range (Sequence[float]): Height to width, drawn evenly in the logarithm. Defaults to (3 / 10, 10 / 3).
        fill_color (Sequence[float]): One value for each channel of the images, in 0..255. Defaults to (128, 128, 128).
    """

    def __init__(
        self,
        erase_prob: float = 0.5,
        min_area_ratio: float = 0.02,
        max_area_ratio: float = 0.4,
        aspect_range: Sequence[float] = (3 / 10, 10 / 3),
        fill_color: Sequence[float] = (128, 128, 128),
    ) -> None:
        _check_share(erase_prob=erase_prob, min_area_ratio=min_area_ratio, max_area_ratio=max_area_ratio)
        if min_area_ratio > max_area_ratio:
            raise ValueError(f'min_area_ratio {min_area_ratio} is above max_area_ratio {max_area_ratio}.')
        if len(aspect_range) != 2 or not 0 < aspect_range[0] <= aspect_range[1] < math.inf:
            raise ValueError(f'aspect_range is (smallest, largest), both above 0, not {aspect_range!r}.')
        if not all(0 <= value <= 255 for value in fill_color):
            raise ValueError(f'fill_color has a value from 0 to 255 per channel, not {fill_color!r}.')
        self.erase_prob = erase_prob
        self.area_ratios = (min_area_ratio, max_area_ratio)
        self.aspect_range = aspect_range
        self.fill_color = fill_color

    def __call__(self, images: Tensor) -> Tensor:
        n, _, height, width = images.shape
        erase, area, aspect, top, left = torch.rand(5, n, 1, 1, 1, device=images.device)
        low, high = self.area_ratios
        area = height * width * (low + (high - low) * area)
        low, high = torch.tensor(self.aspect_range).log().tolist()
        aspect = (low + (high - low) * aspect).exp()
        h = (area * aspect).sqrt().round().clamp(max=height)
        w = (area / aspect).sqrt().round().clamp(max=width)
        # Corners as of NumPy's randint: each of the places is as likely as another, the last one excluded.
        top = (top * (height - h)).floor()
        left = (left * (width - w)).floor()
        rows = torch.arange(height, device=images.device)[:, None]
        columns = torch.arange(width, device=images.device)
        inside = (rows >= top) & (rows < top + h) & (columns >= left) & (columns < left + w)  # N, 1, H, W
        fill = torch.tensor(self.fill_color, device=images.device).to(images.dtype)[:, None, None]
        return torch.where(inside & (erase < self.erase_prob), fill, images)


@TRANSFORMS.register_module()
class BatchProgressiveResize:
    """Smaller images early in training, where most is learnt at a fraction of the cost.

    Args:
        sizes (Sequence[tuple[float, int]]): From which share of the iterations on, in [0, 1) and rising, images have
            which height and width.

    Raises:
        ValueError: If the shares do not rise from 0.
    """

    def __init__(self, sizes: Sequence[tuple[float, int]]) -> None:
        starts = [start for start, _ in sizes]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= 1:
            raise ValueError(f'sizes are pairs (share of the iterations, size), rising from 0 to below 1; got {sizes}.')
        self.sizes = sizes

    def __call__(self, images: Tensor) -> Tensor:
        hub = MessageHub.get_current_instance()  # MMEngine says there where a run stands
        progress = hub.get_info('iter', 0) / hub.get_info('max_iters', 1)
        size = [size for start, size in self.sizes if start <= progress][-1]
        if images.shape[2:] == (size, size):
            return images
        return F.interpolate(images.float(), (size, size), mode='bilinear', antialias=True)
