"""The way back: from what a network sees to the image as it was before the test pipeline."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import Tensor

from ..utils import random_state

Step = Callable[[dict], dict]

# What is known of the transforms of these packages, by name. Any other one is observed at work.
KNOWN_PACKAGES = ('mmcv', 'mmdet', 'mmpretrain', 'mmresattn', 'mmseg', 'torchvision')
KEEPS_POSITIONS = re.compile(  # moves no pixel
    'Load|Pack|Normalize|ToTensor|ImageToTensor|NumpyToPIL|PILToNumpy|ReplaySeed|GaussianBlur|Sharpness|CLAHE'
)
RESIZES = re.compile(r'(Random|RandomChoice|FixShape|FixScale)?Resize$|ResizeEdge|ResizeShortestEdge|ResizeToMultiple')
PADS = re.compile('Pad$')  # on the right and at the bottom
SLACK = 0.01  # pixels by which a view may be wrong
CANDIDATES = 100  # places of a crop that are compared in full


def maps_on_images(maps: Tensor, data_samples: Sequence[BaseDataElement]) -> list[Tensor]:
    """Lay maps over the images as they were before MMDetection or MMSegmentation resized and padded them.

    A map covers the padded image, whose padding is on the right and at the bottom: it is resized to that, cut to the
    image in it, and resized to the original.

    Args:
        maps (Tensor): Maps (N, C, h, w) of a batch, such as one of
            :func:`~mmresattn.models.layers.record_attention`.
        data_samples (Sequence[BaseDataElement]): The N samples of that batch, as the model returned them. They have
            ``ori_shape``, ``img_shape`` (after resizing) and, if padded, ``batch_input_shape`` or ``pad_shape``. They
            were not mirrored.

    Returns:
        List[Tensor]: For each image its maps (C, H, W) at its original height and width.

    Raises:
        ValueError: If the numbers of maps and samples differ, or if a sample lacks its shapes.
    """
    placed = []
    for attention, sample in zip(maps, data_samples, strict=True):
        shapes = sample.metainfo
        if not {'ori_shape', 'img_shape'} <= shapes.keys():
            raise ValueError(
                f'A data sample must have ori_shape and img_shape; this one has {sorted(shapes)}. Use the samples '
                'that the model returned, and meta_keys of the pipeline that keep both.'
            )
        padded = shapes.get('batch_input_shape', shapes.get('pad_shape', shapes['img_shape']))
        height, width = shapes['img_shape'][:2]
        on_input = _resize(attention, padded)[:, :height, :width]
        placed.append(_resize(on_input, shapes['ori_shape']))
    return placed


@dataclass(frozen=True)
class View:
    """What a network sees of an image.

    A place in the image, in pixels from its upper and left edges (centres of pixels at .5), is seen at
    ``scale * place + offset``. All pairs are (vertical, horizontal).

    Attributes:
        original (Tuple[int, int]): Height and width of the image.
        output (Tuple[int, int]): Height and width after the test pipeline.
        scale (Tuple[float, float]): Pixels after the pipeline per pixel of the image, negative where it is mirrored.
        offset (Tuple[float, float]): Where the corner of the image lies after the pipeline, negative where it is
            cropped.
    """

    original: tuple[int, int]
    output: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def place(self, row: float, column: float) -> tuple[float, float]:
        """Where a place of the image is seen; beyond the edges if it was cropped."""
        return row * self.scale[0] + self.offset[0], column * self.scale[1] + self.offset[1]

    def then(self, after: 'View') -> 'View':
        """The view through two pipelines, one after the other."""
        scale = tuple(a * b for a, b in zip(self.scale, after.scale))
        offset = tuple(a * b + c for a, b, c in zip(self.offset, after.scale, after.offset))
        return View(self.original, after.output, scale, offset)


def run_and_follow(transforms: Sequence[Step], results: dict) -> tuple[dict, View]:
    """Run a pipeline on an image and find which part of it is left, and how large.

    Every step works on the real pixels, once more where that is needed to see what it does, with the same random
    state. In this order:

    1. Transforms of OpenMMLab and torchvision that keep every pixel in its place, resize the whole image, or pad on the
       right and at the bottom are known by name, and cost nothing.
    2. The result is a view into the memory of the image, as from slicing: the slice says which part.
    3. The result has the size of the image, and shuffling rows and columns before or after the step gives the same: no
       pixel was moved.
    4. The pixels of the result are found in the image, in one place alone, perhaps mirrored; or, where the image
       repeats itself, those of noise.
    5. How the result changes with small ramps added to the image says where each pixel came from.

    Args:
        transforms (Sequence[Callable]): Those of MMCV, MMPretrain, MMDetection, MMSegmentation or anyone else's.
        results (dict): With ``img``, an image (H, W) or (H, W, C), and what else the transforms need.

    Returns:
        Tuple[dict, View]: What the last step returns; and the view.

    Raises:
        ValueError: If a step does more than to resize, crop, pad or mirror, such as rotating, or if what it does cannot
            be told.
    """
    shape = _pixels(results['img']).shape[:2]
    view = View(shape, shape)
    for step in _flat(transforms):
        if 'img' not in results:  # it is packed
            results = step(results)
        else:
            results, moved = _follow(step, results)
            view = view.then(moved) if moved else view
    return results, view


def maps_in_view(maps: Tensor, view: View, padded: Sequence[int] | None = None) -> Tensor:
    """Lay the maps of an image over it as it was before the test pipeline.

    Args:
        maps (Tensor): Maps (C, h, w) over all that the network saw.
        view (View): From :func:`run_and_follow`.
        padded (Sequence[int], optional): Height and width of the network's input, if the batch was padded on the right
            and at the bottom after the pipeline. Defaults to ``view.output``.

    Returns:
        Tensor: Maps (C, H, W) at the size of the original, bilinear between the centres of the map's cells; NaN where
        the network did not see the image, as it was cropped.
    """
    weights, outside = [], []
    for i, (size, cells, whole) in enumerate(zip(view.original, maps.shape[1:], padded or view.output)):
        places = (torch.arange(size, dtype=torch.float64, device=maps.device) + 0.5) * view.scale[i] + view.offset[i]
        outside.append((places < -SLACK) | (places > view.output[i] + SLACK))
        places = (places / whole * cells - 0.5).clamp(0, cells - 1)
        distances = (places[:, None] - torch.arange(cells, device=maps.device)).abs()  # size, cells
        weights.append((1 - distances).clamp_min(0).to(maps))
    placed = weights[0] @ maps @ weights[1].T  # C, H, W
    placed[:, outside[0]] = torch.nan
    placed[:, :, outside[1]] = torch.nan
    return placed


def _flat(transforms: Sequence[Step]) -> Iterator[Step]:
    for step in transforms:
        if type(step).__name__ == 'Compose' and type(step).__module__.startswith(('mmcv.', 'mmengine.')):
            yield from _flat(step.transforms)
        else:
            yield step


def _follow(step: Step, results: dict) -> tuple[dict, View | None]:
    """What a step returns, and its view; None after packing."""
    kind = type(getattr(step, 't', step))  # MMPretrain wraps torchvision's
    image = _pixels(results['img'])
    known = kind.__module__.partition('.')[0] in KNOWN_PACKAGES
    resizes = RESIZES.match(kind.__name__)
    pads = PADS.match(kind.__name__) and not kind.__module__.startswith('torchvision')  # which pads every side
    if known and (resizes or pads or KEEPS_POSITIONS.match(kind.__name__)):
        results = step(results)
        if 'img' not in results:
            return results, None
        shape = _pixels(results['img']).shape[:2]
        scale = tuple(b / a for a, b in zip(image.shape, shape)) if resizes else (1.0, 1.0)
        return results, View(image.shape[:2], shape, scale)

    if isinstance(results['img'], np.ndarray):
        results['img'] = image = np.ascontiguousarray(image)
    before, start, restore = image.copy(), dict(results), random_state()  # some steps work in place
    results = step(results)
    if 'img' not in results:
        return results, None
    after = _pixels(results['img'])

    def again(changed: np.ndarray) -> np.ndarray | None:
        """What the step makes of other pixels; None if it does not take them."""
        restore_later = random_state()
        restore()
        try:
            given = changed if isinstance(start['img'], np.ndarray) else Image.fromarray(changed)
            return _pixels(step({**start, 'img': given})['img'])
        except Exception:  # anyone's code, perhaps on another type of numbers
            return None
        finally:
            restore_later()

    view = _slice(before, image, after) or _unmoved(before, after, again) or _crop(before, after, again)
    if view := view or _ramps(before, after, again):
        return results, view
    raise ValueError(
        f'Maps cannot be placed on the original image: {kind.__name__} of the test pipeline does more than to resize, '
        'crop, pad or mirror it, or how it does so cannot be determined. Remove it from the test pipeline, or ask for '
        'maps as the network made them.'
    )


def _pixels(image) -> np.ndarray:
    """An image of NumPy, Pillow or PyTorch as (H, W) or (H, W, C)."""
    return image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)


def _part(before: np.ndarray, low: Sequence[int], after: np.ndarray, signs: Sequence[int]) -> View | None:
    """The view of a crop whose first row and column are ``low``, perhaps mirrored, if its pixels are these."""
    (top, left), (height, width) = low, after.shape[:2]
    part = before[top : top + height, left : left + width][:: signs[0], :: signs[1]]
    if min(low) < 0 or not np.array_equal(part, after):
        return None
    offset = tuple(-start if sign > 0 else start + size for start, size, sign in zip(low, after.shape, signs))
    return View(before.shape[:2], after.shape[:2], tuple(map(float, signs)), tuple(map(float, offset)))


def _slice(before: np.ndarray, image: np.ndarray, after: np.ndarray) -> View | None:
    if after.dtype != image.dtype or after.ndim != image.ndim or not np.may_share_memory(image, after):
        return None
    signs = [1 if b > 0 else -1 for b in after.strides[:2]]
    distance = after.__array_interface__['data'][0] - image.__array_interface__['data'][0]
    row, rest = divmod(distance, image.strides[0])
    first = row, rest // image.strides[1]
    low = [at if sign > 0 else at - size + 1 for at, sign, size in zip(first, signs, after.shape)]
    return _part(before, low, after, signs)


def _unmoved(before: np.ndarray, after: np.ndarray, again: Callable) -> View | None:
    if after.shape[:2] != before.shape[:2]:
        return None
    random = np.random.default_rng(0)
    rows, columns = (random.permutation(size) for size in before.shape[:2])

    def shuffle(image: np.ndarray) -> np.ndarray:
        return image[rows][:, columns]

    noise = _noise(before)
    # Noise shows what the pixels of the image may be too regular to show; they show what depends on them.
    for image, made in ((before, after), (noise, again(noise))):
        moved = again(shuffle(image))
        if made is None or moved is None or moved.shape != made.shape:
            return None
        if np.abs(moved.astype(np.float64) - shuffle(made)).max() > _rounding(made):
            return None
    return View(before.shape[:2], after.shape[:2])


def _crop(before: np.ndarray, after: np.ndarray, again: Callable) -> View | None:
    if after.dtype != before.dtype or after.ndim != before.ndim:
        return None
    found = _places(before, after)
    if len(found) != 1:  # the image repeats itself, but noise does not
        made = again(noise := _noise(before))
        found = [] if made is None or made.shape != after.shape else _places(noise, made)
    return _part(before, found[0][0], after, found[0][1]) if len(found) == 1 else None


def _places(before: np.ndarray, after: np.ndarray) -> list[tuple[list[int], tuple[int, int]]]:
    """Where the pixels of a crop are found: first row and column, and signs; none if in too many places."""
    height, width = after.shape[:2]
    rows, columns = before.shape[0] - height + 1, before.shape[1] - width + 1
    if min(rows, columns) < 1:
        return []
    unusual = np.abs(after - np.median(after)).reshape(height * width, -1).sum(-1) + 1e-3
    checked = np.random.default_rng(0).choice(height * width, 16, p=unusual / unusual.sum())
    found = []
    for signs in itertools.product((1, -1), repeat=2):
        mirrored = after[:: signs[0], :: signs[1]]
        here = np.ones((rows, columns), bool)
        for y, x in zip(*np.unravel_index(checked, (height, width))):
            same = before[y : y + rows, x : x + columns] == mirrored[y, x]
            here &= same.all(-1) if same.ndim == 3 else same
        places = np.argwhere(here).tolist()
        if len(places) > CANDIDATES:
            return []
        found += [(low, signs) for low in places if _part(before, low, after, signs)]
    return found


def _noise(image: np.ndarray) -> np.ndarray:
    return (np.random.default_rng(1).random(image.shape) * max(image.max(), 1)).astype(image.dtype)


def _ramps(before: np.ndarray, after: np.ndarray, again: Callable) -> View | None:
    """Linear steps carry ramps that are added to an image to where they carry its pixels."""
    image = before.astype(np.float32)
    strength = float(np.ptp(image)) / 32 or 1.0
    ramps = [np.ones(image.shape[:2])]
    ramps += np.meshgrid(*((np.arange(size) + 0.5) / size for size in image.shape[:2]), indexing='ij')
    ramps = [strength * ramp.reshape(ramp.shape + (1,) * (image.ndim - 2)) for ramp in ramps]
    base = again(image.copy())
    carried = [again((image + ramp).astype(np.float32)) for ramp in ramps]
    if base is None or any(carrier is None or carrier.shape != after.shape for carrier in (base, *carried)):
        return None
    made = base
    if np.issubdtype(after.dtype, np.integer):  # which bicubic interpolation exceeds
        made = base.clip(np.iinfo(after.dtype).min, np.iinfo(after.dtype).max)
    if np.abs(made - after).max() > 2 * _rounding(after):
        return None  # floating-point numbers make it another step
    ones, *places = ((carrier - base).reshape(*after.shape[:2], -1).mean(-1) for carrier in carried)
    inside = np.abs(ones) > 0.5 * np.abs(ones).max()  # no padding
    lines = []
    for axis, (size, ramp) in enumerate(zip(image.shape, places)):
        place = size * ramp / np.where(inside, ones, 1)
        centre = np.broadcast_to(np.indices(place.shape)[axis] + 0.5, place.shape)
        fit = inside & (place > 0.5) & (place < size - 0.5)  # resizing repeats the outermost pixels
        if len(np.unique(centre[fit])) < 2:
            return None
        slope, start = np.polyfit(centre[fit], place[fit], 1)
        if not slope or not np.allclose(slope * centre[fit] + start, place[fit], atol=0.1):
            return None
        lines.append((float(1 / slope), float(-start / slope)))
    scale, offset = zip(*lines)
    return View(before.shape[:2], after.shape[:2], scale, offset)


def _rounding(image: np.ndarray) -> float:
    """Differences between equal images, from rounding and interpolation."""
    return (1 if np.issubdtype(image.dtype, np.integer) else 0) + 1e-3 * float(image.max() - image.min())


def _resize(maps: Tensor, shape: Sequence[int]) -> Tensor:
    return F.interpolate(maps[None], tuple(shape[:2]), mode='bilinear', align_corners=False)[0]
