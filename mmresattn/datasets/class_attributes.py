"""Yes-or-no attributes that follow from the class of an image."""

from collections.abc import Mapping, Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ClassAttributes(BaseTransform):
    """Gives each sample the attributes of its class, to try networks of many tasks on a plain data set.

    Required key: ``gt_label``, the class. Added key: ``gt_score``, float32 (T,), 1 for the attributes that the class
    has and 0 for the others.

    Args:
        attributes (Mapping[str, Sequence[int]]): For each attribute its classes.

    Raises:
        ValueError: If there is no attribute, or one has no classes or something else than indices of classes.
    """

    def __init__(self, attributes: Mapping[str, Sequence[int]]) -> None:
        for name, classes in attributes.items():
            if not classes or not all(isinstance(index, int) and index >= 0 for index in classes):
                raise ValueError(f'The attribute {name!r} must list the classes that have it, from 0; got {classes!r}.')
        if not attributes:
            raise ValueError('attributes names at least one: dict(even=[0, 2, 4, 6, 8]).')
        self.attributes = {name: frozenset(classes) for name, classes in attributes.items()}

    def transform(self, results: dict) -> dict:
        """Add ``gt_score``."""
        label = int(results['gt_label'])
        results['gt_score'] = np.array([label in classes for classes in self.attributes.values()], np.float32)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({ {name: sorted(classes) for name, classes in self.attributes.items()} })'
