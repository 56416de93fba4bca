"""Attention maps that people have corrected, loaded beside their images (Mitsuhara et al., arXiv:1905.03540).

Between loading and splitting, the map is one more channel of the image: whatever crops, mirrors or resizes the pixels
does the same to the map, with the same draw.
"""

import os
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


def read_attention_map(path: str | Path) -> np.ndarray:
    """Read one map.

    Args:
        path (str | Path): A grey PNG of 8 or 16 bits, whose white is 1, or an ``.npy`` file with values in [0, 1].

    Returns:
        np.ndarray: The map (H, W), float32 in [0, 1].

    Raises:
        ValueError: If the file cannot be read, or is no map.
    """
    if Path(path).suffix == '.npy':
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f'The attention map {path} is no readable .npy file of numbers: {error}') from error
    else:
        array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if array is None:
            raise ValueError(f'The attention map {path} is no readable image; expected a grey PNG of 8 or 16 bits.')
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f'The attention map {path} is of shape {array.shape}; expected (H, W): grey, one channel.')
    if Path(path).suffix != '.npy':
        array = array / np.iinfo(array.dtype).max
    if not (array.min() >= 0 and array.max() <= 1):  # also of NaN
        raise ValueError(
            f'The attention map {path} has values from {array.min()} to {array.max()}; expected [0, 1]. Rescale it.'
        )
    return array.astype(np.float32)


@TRANSFORMS.register_module()
class LoadAttentionMap(BaseTransform):
    """Loads the corrected attention map of an image, if there is one, as one more channel of the image.

    It comes right after ``LoadImageFromFile``; then crops, flips and resizes; then :class:`SplitAttentionMap`, and only
    then what takes the channels for colours, such as ``ColorJitter``, ``Lighting`` or ``RandomErasing``. Images without
    a map get a channel of zeros, which is dropped again. In an image of uint8 a map is kept to 1/255; with
    ``LoadImageFromFile(to_float32=True)`` it is not rounded. A ``pad_val`` of one number gives the map a border of 0;
    a tuple has one number more, for the map.

    **Required Keys:** img, img_path. **Modified Keys:** img. **Added Keys:** has_attention_map.

    Args:
        map_root (str): Folder of the maps, ``.png`` or ``.npy`` (see :func:`read_attention_map`), of any size each.
        image_root (str, optional): Folder of the images. The map of ``image_root/a/b.jpg`` is ``map_root/a/b.png`` or
            ``map_root/a/b.npy``. Defaults to None: it is ``map_root/b.png`` or ``map_root/b.npy``, wherever the image
            lies, for images whose names differ.

    Raises:
        FileNotFoundError: If there is no folder ``map_root``.
        ValueError: If an image is not in ``image_root`` or has two maps, or a map cannot be read.
    """

    def __init__(self, map_root: str, image_root: str | None = None) -> None:
        self.map_root = Path(map_root).expanduser()
        self.image_root = image_root and os.path.abspath(os.path.expanduser(image_root))
        if not self.map_root.is_dir():
            raise FileNotFoundError(
                f'LoadAttentionMap reads {self.map_root.absolute()}, which is no folder. Put the corrected maps there, '
                'one .png or .npy with the name of each image that has one.'
            )

    def find(self, image: str) -> Path | None:
        """The file of the map of an image.

        Args:
            image (str): Path of the image.

        Returns:
            Path | None: Path of its map, None if it has none.
        """
        image = Path(os.path.abspath(image))
        if self.image_root and not image.is_relative_to(self.image_root):
            raise ValueError(f'The image {image} is not in the image_root of LoadAttentionMap, {self.image_root}.')
        place = self.map_root / (image.relative_to(self.image_root) if self.image_root else image.name)
        found = [path for path in (place.with_suffix('.png'), place.with_suffix('.npy')) if path.exists()]
        if len(found) > 1:
            raise ValueError(f'The image {image} has two maps, {found[0]} and {found[1]}. Remove one.')
        return found[0] if found else None

    def transform(self, results: dict) -> dict:
        """Load the map.

        Args:
            results (dict): With ``img`` (H, W, C).

        Returns:
            dict: With ``img`` (H, W, C + 1), whose last channel is the map times 255.
        """
        img = results['img']
        height, width = img.shape[:2]
        channel = np.zeros((height, width), img.dtype)
        path = self.find(results['img_path'])
        if path is not None:
            pixels = 255 * cv2.resize(read_attention_map(path), (width, height))  # bilinear
            channel = (pixels.round() if img.dtype == np.uint8 else pixels).astype(img.dtype)
        results['img'] = np.dstack((img, channel))
        results['has_attention_map'] = path is not None
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(map_root={str(self.map_root)!r}, image_root={self.image_root!r})'


@TRANSFORMS.register_module()
class SplitAttentionMap(BaseTransform):
    """Takes the map of :class:`LoadAttentionMap` off the image again.

    **Required Keys:** img, has_attention_map. **Modified Keys:** img, img_shape. **Added Keys:** gt_attention_map, of
    images that have one. ``PackInputs(algorithm_keys=('gt_attention_map',))`` hands it to the model.

    Raises:
        KeyError: If no :class:`LoadAttentionMap` came before.
    """

    def transform(self, results: dict) -> dict:
        """Split image and map.

        Args:
            results (dict): With ``img`` (H, W, C + 1).

        Returns:
            dict: With ``img`` (H, W, C) and, if there is a map, ``gt_attention_map`` (H, W), float32 in [0, 1].
        """
        if 'has_attention_map' not in results:
            raise KeyError('SplitAttentionMap finds no map in the image. Put LoadAttentionMap after LoadImageFromFile.')
        img = results['img']
        results['img'] = np.ascontiguousarray(img[..., :-1])
        results['img_shape'] = img.shape[:2]
        if results.pop('has_attention_map'):
            attention = np.float32(img[..., -1]) / 255
            results['gt_attention_map'] = torch.from_numpy(attention.clip(0, 1))  # cubic resizing overshoots
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
