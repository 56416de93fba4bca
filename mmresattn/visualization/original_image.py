"""From the network's grid back to the picture that a person sees."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import Tensor

STILL = ('Load', 'Pack', 'Normalize', 'ToTensor', 'ImageToTensor')  # transforms that move no pixel begin so
MARK = -1.0  # no padding has this value
SLACK = 0.01  # pixels by which a view may be wrong


def maps_on_images(maps: Tensor, data_samples: Sequence[BaseDataElement]) -> list[Tensor]:
    """Lay maps over the images as they were before MMDetection or MMSegmentation resized and padded them.

    A map covers the padded image, whose padding is on the right and at the bottom: it is resized to that, cut to the
    image in it, and resized to the original.

    Args:
        maps (Tensor): Maps (N, C, h, w) of a batch, such as one of
            :func:`~mmresattn.models.layers.record_attention`.
        data_samples (Sequence[BaseDataElement]): The N samples of that batch, as the model returned them. They say
            ``ori_shape``, ``img_shape`` (after resizing) and, if padded, ``batch_input_shape`` or ``pad_shape``. They
            were not mirrored.

    Returns:
        List[Tensor]: For each image its maps (C, H, W) at its original height and width.

    Raises:
        ValueError: If the numbers of maps and samples differ, or if a sample does not say its shapes.
    """
    if len(maps) != len(data_samples):
        raise ValueError(f'{len(maps)} maps are not of these {len(data_samples)} images: give both of one batch.')
    placed = []
    for one, sample in zip(maps, data_samples):
        shapes = sample.metainfo
        if not {'ori_shape', 'img_shape'} <= shapes.keys():
            raise ValueError(
                f'A data sample must say its ori_shape and img_shape; this one says {sorted(shapes)}. Use the samples '
                'that the model returned, and meta_keys of the pipeline that keep both.'
            )
        padded = shapes.get('batch_input_shape', shapes.get('pad_shape', shapes['img_shape']))
        height, width = shapes['img_shape'][:2]
        on_input = _resize(one, padded)[:, :height, :width]
        placed.append(_resize(on_input, shapes['ori_shape']))
    return placed


@dataclass(frozen=True)
class View:
    """What a network sees of an image.

    A place in the image, in pixels from its upper and left edges (centres of pixels at .5), is seen at
    ``scale * place + offset``. All pairs are (vertical, horizontal).

    Attributes:
        original (Tuple[int, int]): Height and width of the image.
        seen (Tuple[int, int]): Height and width after the test pipeline.
        scale (Tuple[float, float]): Seen pixels for a pixel of the image, negative where it is mirrored.
        offset (Tuple[float, float]): Where the corner of the image is seen, negative where it is cropped.
    """

    original: tuple[int, int]
    seen: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]

    def place(self, row: float, column: float) -> tuple[float, float]:
        """Where a place of the image is seen; beyond the edges if it was cropped."""
        return row * self.scale[0] + self.offset[0], column * self.scale[1] + self.offset[1]


def pipeline_view(transforms: Sequence[Callable[[dict], dict]], shape: tuple[int, int]) -> View:
    """Which part of an image a test pipeline leaves, and how large.

    An image whose pixels say where they are is sent through the transforms, and the straight line through what arrives
    is the answer, to some thousandths of a pixel: for every resizing, cropping, padding and mirroring alike, also for
    transforms that note nothing of what they did.

    Args:
        transforms (Sequence[Callable]): Those of MMCV, MMPretrain, MMDetection or MMSegmentation. Loading, packing and
            normalisation are left out.
        shape (Tuple[int, int]): Height and width of the image.

    Returns:
        View: For :func:`maps_in_view`.

    Raises:
        ValueError: If the transforms do more than that, such as rotating, or change the values of pixels.
    """
    transforms = [one for one in transforms if not type(one).__name__.startswith(STILL)]
    rows, columns = np.indices(shape, np.float32) + 0.5
    results = dict(
        img=np.stack([rows, columns, np.full(shape, MARK, np.float32)], -1), img_shape=shape, ori_shape=shape
    )
    for transform in transforms:
        if hasattr(transform, 'interpolation'):  # which says how pixels mix, not where they go; Pillow wants bytes
            transform = copy.copy(transform)
            transform.interpolation, transform.backend = 'bilinear', 'cv2'
        results = transform(results)
    arrived = results['img']
    inside = np.abs(arrived[..., 2] - MARK) < 1e-3  # no padding
    lines = []
    for axis, size in enumerate(shape):
        places = np.where(inside, arrived[..., axis], np.nan)
        centres = np.broadcast_to(np.indices(places.shape)[axis] + 0.5, places.shape)
        fit = (places > 0.5) & (places < size - 0.5)  # resizing repeats the outermost pixels
        # An image of one or two pixels has no line: it is taken to be seen as a whole.
        slope, start = size / places.shape[axis], 0.0
        if len(np.unique(centres[fit])) > 1:
            slope, start = np.polyfit(centres[fit], places[fit], 1)
        if not np.allclose(slope * centres[fit] + start, places[fit], atol=0.05) or not slope:
            raise ValueError(
                f'The transforms {[type(one).__name__ for one in transforms]} do more than to resize, crop, pad or '
                'mirror an image, so that maps cannot be laid over the original: take the others out of the test '
                'pipeline.'
            )
        lines.append((1 / slope, -start / slope))
    (scale_y, offset_y), (scale_x, offset_x) = lines
    return View(tuple(shape), arrived.shape[:2], (scale_y, scale_x), (offset_y, offset_x))


def maps_in_view(maps: Tensor, view: View, padded: Sequence[int] | None = None) -> Tensor:
    """Lay the maps of an image over it as it was before the test pipeline.

    Args:
        maps (Tensor): Maps (C, h, w) over all that the network saw.
        view (View): From :func:`pipeline_view`.
        padded (Sequence[int], optional): Height and width of the network's input, if the batch was padded on the right
            and at the bottom after the pipeline. Defaults to ``view.seen``.

    Returns:
        Tensor: Maps (C, H, W) at the size of the original, bilinear between the centres of the map's cells; NaN where
        the network did not see the image, as it was cropped.
    """
    sides = []
    outside = []
    for size, seen, whole, scale, offset in zip(view.original, view.seen, padded or view.seen, view.scale, view.offset):
        places = (torch.arange(size, dtype=torch.float64) + 0.5) * scale + offset
        outside.append((places < -SLACK) | (places > seen + SLACK))
        sides.append(2 * places / whole - 1)
    grid = torch.stack(torch.meshgrid(*sides, indexing='ij')[::-1], -1)[None]  # x, y
    placed = F.grid_sample(maps[None].double(), grid, padding_mode='border', align_corners=False)[0].to(maps)
    placed[:, outside[0][:, None] | outside[1]] = torch.nan
    return placed


def _resize(maps: Tensor, shape: Sequence[int]) -> Tensor:
    return F.interpolate(maps[None], tuple(shape[:2]), mode='bilinear', align_corners=False)[0]
