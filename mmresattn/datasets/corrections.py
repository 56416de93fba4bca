"""Corrections: what people painted over the attention maps of photographs, and its way into training.

A folder of corrections is what the attention editor writes: a
:class:`~mmresattn.datasets.correction_log.CorrectionLog`. One correction serves every use
(:func:`~mmresattn.apis.training_config`): it *erases* areas that the network should not look at, *adds* areas that it
should, or both. An image that was skipped counts as corrected, too: it has neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from torch.utils.data import Dataset

from .attention_maps import MapTransform, read_attention_map
from .correction_log import MANIFEST, CorrectionLog
from .strokes import paint


@dataclass
class Correction:
    """What a person painted over one image.

    Attributes:
        image (str): The image, relative to the folder that was corrected, with ``/``.
        strokes (list[dict]): All strokes, see :func:`~mmresattn.datasets.strokes.paint`. None at all: the person looked
            and left the image as it was.
        maps (dict[str, Path]): By layer the corrected attention map.
    """

    image: str
    strokes: list[dict] = field(default_factory=list)
    maps: dict[str, Path] = field(default_factory=dict)

    def areas(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Areas that were erased and added.

        Args:
            shape (tuple[int, int]): Height and width of the image file.

        Returns:
            tuple[np.ndarray, np.ndarray]: ``erased`` and ``added``, each (H, W), float32 in [0, 1]. Of the last stroke
            over a point, a value under one half erases, one above adds, by its distance from one half.
        """
        attention, opacity = np.moveaxis(paint(self.strokes, shape), -1, 0)
        return opacity * (1 - 2 * attention).clip(0), opacity * (2 * attention - 1).clip(0)


class Corrections:
    """The corrections in a folder.

    Args:
        folder (str | Path): The folder, with ``manifest.jsonl``.

    Attributes:
        folder (Path): The folder.
        by_image (dict[str, Correction]): By name of the image.

    Raises:
        FileNotFoundError: If there is no manifest, or a map that it names is missing.
        ValueError: If the manifest is empty or broken.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        manifest = self.folder / MANIFEST
        if not manifest.is_file():
            raise FileNotFoundError(
                f'There is no {manifest.absolute()}. Give the folder to which the attention editor saved corrections.'
            )
        log = CorrectionLog(self.folder)
        self.by_image = {image: Correction(image) for image in log.skipped}
        for (image, layer), entry in log.saved.items():
            path = self.folder / entry['map']
            if not path.is_file():
                raise FileNotFoundError(f'{manifest} names {path}, which does not exist.')
            correction = self.by_image.setdefault(image, Correction(image))
            correction.strokes += entry['strokes']
            correction.maps[layer] = path
        if not self.by_image:
            raise ValueError(f'{manifest} has no corrections that were not taken back.')

    def __len__(self) -> int:
        return len(self.by_image)

    @property
    def layers(self) -> list[str]:
        """Layers of which there are corrected maps."""
        return sorted({layer for correction in self.by_image.values() for layer in correction.maps})

    def of(self, image: str | Path) -> Correction | None:
        """The correction of an image, whose path ends in the name under which it was corrected; None without one."""
        parts = PurePath(image).parts
        names = ('/'.join(parts[-n:]) for n in range(1, len(parts) + 1))
        return next((self.by_image[name] for name in names if name in self.by_image), None)

    def indices(self, dataset: Dataset) -> list[int]:
        """Indices of the corrected images in a data set.

        Raises:
            ValueError: If it has none of them.
        """
        found = [i for i in range(len(dataset)) if self.of(dataset.get_data_info(i)['img_path'])]
        if not found:
            name = next(iter(self.by_image))
            raise ValueError(
                f'None of the {len(self)} corrected images in {self.folder}, such as {name}, is one of the '
                f'{len(dataset)} training images, such as {dataset.get_data_info(0)["img_path"]}. Correct training '
                'images, by the names of their files and folders.'
            )
        return found


@TRANSFORMS.register_module()
class LoadCorrection(MapTransform):
    """Loads the correction of an image, if there is one, and moves it as the image is moved.

    **Required Keys:** img, img_path; ori_shape if the image was resized before. **Modified Keys:** those of
    ``transforms``. **Added Keys**, for images with a correction, float32 tensors (H, W) in [0, 1] of the size of the
    transformed image: ``gt_erased`` and ``gt_added``, and with ``layer`` also ``gt_attention_map``.
    ``PackInputs(algorithm_keys=LoadCorrection.KEYS)`` hands them to the model.

    Args:
        corrections (str): Folder of corrections, see :class:`Corrections`.
        transforms (Sequence[dict]): The steps that move pixels, see :class:`LoadAttentionMap`. Defaults to none.
        layer (str, optional): Layer whose corrected maps are loaded. Defaults to none.
    """

    KEYS = ('gt_erased', 'gt_added', 'gt_attention_map')

    def __init__(self, corrections: str, transforms: Sequence[dict] = (), layer: str | None = None) -> None:
        super().__init__(transforms)
        self.corrections = Corrections(corrections)
        self.layer = layer

    def transform(self, results: dict) -> dict | None:
        """Load the correction, and move image and correction; None if a step asks for another image."""
        correction = self.corrections.of(results['img_path'])
        if correction is None:
            return self.transforms(results)
        erased, added = correction.areas(results.get('ori_shape', results['img'].shape)[:2])
        maps = dict(gt_erased=erased, gt_added=added)
        if self.layer in correction.maps:
            maps['gt_attention_map'] = read_attention_map(correction.maps[self.layer])
        return self.move_with(results, maps)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self.corrections)} corrections in {self.corrections.folder})'


@TRANSFORMS.register_module()
class ReplaceErased(BaseTransform):
    """Replaces what a correction erased, so that the label cannot be told from it (CAIPI: Teso and Kersting,
    "Explanatory interactive machine learning", AIES 2019; Schramowski et al., arXiv:2001.05371).

    What was added is kept where both overlap. Images without a correction stay as they are.

    **Required Keys:** img; gt_erased and gt_added of :class:`LoadCorrection`. **Modified Keys:** img.

    Args:
        fill (str): ``'noise'``, uniform over all pixel values, or ``'neighbours'``, continued from the pixels around
            (Telea's inpainting). Defaults to ``'noise'``.
    """

    def __init__(self, fill: str = 'noise') -> None:
        if fill not in ('noise', 'neighbours'):
            raise ValueError(f"fill is 'noise' or 'neighbours', not {fill!r}.")
        self.fill = fill

    def transform(self, results: dict) -> dict:
        """Replace the pixels of an image (H, W, C), uint8."""
        if 'gt_erased' not in results:
            return results
        erased = ((results['gt_erased'] > 0.5) & (results['gt_added'] <= 0.5)).cpu().numpy()
        if self.fill == 'noise':
            img = results['img'].copy()
            img[erased] = np.random.randint(0, 256, img[erased].shape, np.uint8)
            results['img'] = img
        else:
            results['img'] = cv2.inpaint(results['img'], erased.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(fill={self.fill!r})'
