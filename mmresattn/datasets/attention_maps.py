"""Attention maps that people have corrected, loaded beside their images (Mitsuhara et al., arXiv:1905.03540)."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from mmengine.registry import TRANSFORMS

from ..utils import random_state, type_name
from .image_files import SUFFIXES

# Transforms of MMCV, MMPretrain and torchvision that move pixels and leave their values alone, apart from borders.
GEOMETRIC = {
    'CenterCrop', 'EfficientNetCenterCrop', 'EfficientNetRandomCrop', 'Pad', 'RandomChoiceResize', 'RandomCrop',
    'RandomFlip', 'RandomResize', 'RandomResizedCrop', 'Resize', 'ResizeEdge', 'Rotate', 'Shear', 'Translate',
    *(f'torchvision/{name}' for name in (
        'CenterCrop', 'Pad', 'RandomAffine', 'RandomCrop', 'RandomHorizontalFlip', 'RandomPerspective',
        'RandomResizedCrop', 'RandomRotation', 'RandomVerticalFlip', 'Resize',
    )),
}  # fmt: skip
CONVERSIONS = {'NumpyToPIL', 'ToPIL', 'PILToNumpy', 'ToNumpy'}
WRAPPERS = {'Compose', 'RandomApply', 'RandomChoice'}  # of other transforms


def read_attention_map(path: str | Path) -> np.ndarray:
    """Read one map.

    Args:
        path (str | Path): A grey PNG of 8 or 16 bits, whose white is 1, or an ``.npy`` file with values in [0, 1].

    Returns:
        np.ndarray: The map (H, W), float32 in [0, 1].

    Raises:
        ValueError: If the file cannot be read or is not a map.
    """
    if Path(path).suffix == '.npy':
        try:
            array = np.load(path, allow_pickle=False)
        except Exception as error:  # NumPy evaluates the header, and whatever that raises comes out
            raise ValueError(f'The attention map {path} is not a readable .npy file of numbers: {error}') from error
        if not isinstance(array, np.ndarray) or array.dtype.kind not in 'biuf':
            raise ValueError(f'The attention map {path} is not an array of numbers.')
    else:
        array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if array is None:
            raise ValueError(f'The attention map {path} is not a readable image; expected a grey PNG of 8 or 16 bits.')
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f'The attention map {path} has the shape {array.shape}; expected (H, W): grey, one channel.')
    if Path(path).suffix != '.npy':
        array = array / np.iinfo(array.dtype).max
    if not (array.min() >= 0 and array.max() <= 1):  # also of NaN
        raise ValueError(
            f'The attention map {path} has values from {array.min()} to {array.max()}; expected [0, 1]. Rescale it.'
        )
    return array.astype(np.float32)


def moves_pixels(step: Mapping) -> bool:
    """Whether the config of a transform names one that moves pixels, or wraps such a one."""
    return any(name in GEOMETRIC for name in _names(step))


def _names(step: Mapping | Sequence) -> Iterator[str]:
    """Names of the transform of a config, or of those that it wraps; RandomChoice has a list of lists of them."""
    if not isinstance(step, Mapping):
        for inner in step:
            yield from _names(inner)
    elif type_name(step) in WRAPPERS:
        yield from _names(step.get('transforms', []))
    else:
        yield type_name(step)


@lru_cache(maxsize=1024)
def _images_of(folder: Path) -> dict[str, list[str]]:
    """Names of the images in a folder, by the name without its suffix."""
    found: dict[str, list[str]] = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name) if folder.is_dir() else ():
        if entry.name.lower().endswith(SUFFIXES):
            found.setdefault(Path(entry.name).stem, []).append(entry.name)
    return found


class MapTransform(BaseTransform):
    """Base of transforms that load maps of an image and move them as the image is moved.

    The steps of the pipeline that crop, resize, flip or rotate are given to this transform. They run on the image as
    they would without it. If the image has maps, they run on each of them too, with the same random numbers. Borders
    that they pad get a map of 0.

    For ``transforms`` a map takes the form of an image: its number of channels and its dtype. So a map is rounded to
    1/255 if images are uint8.

    Args:
        transforms (Sequence[dict]): The steps that move pixels: of MMPretrain, MMCV or torchvision, with any backend.

    Raises:
        ValueError: If a step does more than moving pixels.
    """

    def __init__(self, transforms: Sequence[dict]) -> None:
        for step in transforms:
            if not GEOMETRIC | CONVERSIONS >= set(_names(step)):
                kind = type(self).__name__
                raise ValueError(
                    f'{kind} cannot move a map by {type_name(step)}. Its transforms may be {sorted(GEOMETRIC)}, '
                    f'{sorted(CONVERSIONS)} and {sorted(WRAPPERS)} of these. Put steps that change colours before or '
                    f'after {kind}.'
                )
        self.transforms = Compose([TRANSFORMS.build(step) for step in transforms])

    def move_with(self, results: dict, maps: Mapping[str, np.ndarray]) -> dict | None:
        """Move an image and its maps.

        Args:
            results (dict): With ``img`` (H, W) or (H, W, C).
            maps (Mapping[str, np.ndarray]): By key the maps, each of any size over the whole image, in [0, 1].

        Returns:
            dict | None: The results of ``transforms`` with the moved maps, float32 tensors (H, W), under their keys;
            None if a step asks for another image.
        """
        img = results['img']
        before = {key: value for key, value in results.items() if not key.startswith('gt_')}  # boxes move in place
        scale = np.iinfo(img.dtype).max if img.dtype.kind in 'iu' else 1.0

        restore = random_state()
        results = self.transforms(results)
        if results is None:
            return None
        restore_after = random_state()

        def move(attention: np.ndarray) -> np.ndarray:
            pixels = (attention * scale).round() if scale != 1 else attention
            pixels = pixels.astype(img.dtype)
            pixels = pixels if img.ndim == 2 else np.repeat(pixels[..., None], img.shape[2], axis=2)
            restore()
            moved = np.asarray(self.transforms(dict(before, img=pixels))['img'], np.float32)
            return moved if moved.ndim == 2 else moved[..., 0]

        height, width = img.shape[:2]
        padding = move(np.zeros((height, width), np.float32))  # what is padded has the same value in all maps
        for key, attention in maps.items():
            attention = cv2.resize(np.float32(attention), (width, height))  # bilinear
            moved = (move(attention) - padding) / scale
            results[key] = torch.from_numpy(moved.clip(0, 1))  # cubic interpolation overshoots
        restore_after()
        return results


@TRANSFORMS.register_module()
class LoadAttentionMap(MapTransform):
    """Loads the corrected attention map of an image, if there is one, and moves it as the image is moved.

    See :class:`MapTransform` for how it is moved.

    **Required Keys:** img, img_path. **Modified Keys:** those of ``transforms``. **Added Keys:** gt_attention_map, a
    float32 tensor (H, W) in [0, 1] of the size of the transformed image, for images that have a map.
    ``PackInputs(algorithm_keys=('gt_attention_map',))`` hands it to the model.

    Args:
        map_root (str): Folder of the maps, ``.png`` or ``.npy`` (see :func:`read_attention_map`), of any size each.
        image_root (str, optional): Folder of the images. The map of ``image_root/a/b.jpg`` is ``map_root/a/b.png`` or
            ``map_root/a/b.npy``; if ``image_root/a`` also has a ``b.png``, ``map_root/a/b.jpg.png`` or
            ``map_root/a/b.jpg.npy``. Defaults to None: maps lie directly in ``map_root``, for images whose names
            differ.
        transforms (Sequence[dict]): See :class:`MapTransform`. All other steps, such as ``ColorJitter`` or
            ``RandomErasing``, come before or after this transform. Defaults to none.

    Raises:
        FileNotFoundError: If there is no folder ``map_root``.
        ValueError: If a step does more than moving pixels, an image is not in ``image_root`` or has two maps, two
            images have the same map, or a map cannot be read.
    """

    def __init__(self, map_root: str, image_root: str | None = None, transforms: Sequence[dict] = ()) -> None:
        self.map_root = Path(map_root).expanduser()
        self.image_root = image_root and os.path.abspath(os.path.expanduser(image_root))
        if not self.map_root.is_dir():
            raise FileNotFoundError(
                f'LoadAttentionMap reads {self.map_root.absolute()}, which is not a folder. Put the corrected maps '
                'there: a .png or .npy with the name of each image that has one.'
            )
        super().__init__(transforms)
        self.owners: dict[Path, Path] = {}

    def find(self, image: str) -> Path | None:
        """The file of the map of an image, by the path of the image; None if it has none."""
        image = Path(os.path.abspath(image))
        if self.image_root and not image.is_relative_to(self.image_root):
            raise ValueError(f'The image {image} is not in the image_root of LoadAttentionMap, {self.image_root}.')
        place = self.map_root / (image.relative_to(self.image_root) if self.image_root else image.name)
        found = [place.with_name(f'{name}{suffix}') for name in (place.name, place.stem) for suffix in ('.png', '.npy')]
        found = [path for path in found if path.exists()]
        if len(found) > 1:
            raise ValueError(f'The image {image} has two maps, {found[0]} and {found[1]}. Remove one.')
        if not found:
            return None
        same_stem = _images_of(image.parent).get(image.stem, [])
        if len(same_stem) > 1 and found[0].stem == place.stem:
            raise ValueError(
                f'{found[0]} could be the map of {" and of ".join(same_stem)} in {image.parent}. Name it '
                f'{image.name}{found[0].suffix}, or as the map of the other.'
            )
        owner = self.owners.setdefault(found[0], image)
        if owner != image:
            raise ValueError(
                f'{owner} and {image} have the same map, {found[0]}. Sort the maps into the folders of their images '
                'and set image_root.'
            )
        return found[0]

    def transform(self, results: dict) -> dict | None:
        """Load the map, and move image and map; None if a step asks for another image."""
        path = self.find(results['img_path'])
        if path is None:
            return self.transforms(results)
        return self.move_with(results, dict(gt_attention_map=read_attention_map(path)))

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(map_root={str(self.map_root)!r}, image_root={self.image_root!r}, '
            f'transforms={self.transforms})'
        )
