from .attention_maps import LoadAttentionMap, SplitAttentionMap
from .batch_transforms import BatchProgressiveResize, BatchRandomCrop, BatchRandomErasing, BatchRandomFlip
from .celeba import CELEBA_ATTRIBUTES, CelebAAttributes
from .checks import check_data
from .class_attributes import ClassAttributes
from .image_arrays import ImageArrays
from .in_memory import InMemory
from .noisy_labels import NoisyLabels

__all__ = [
    'CELEBA_ATTRIBUTES',
    'BatchProgressiveResize',
    'BatchRandomCrop',
    'BatchRandomErasing',
    'BatchRandomFlip',
    'CelebAAttributes',
    'ClassAttributes',
    'InMemory',
    'ImageArrays',
    'LoadAttentionMap',
    'NoisyLabels',
    'SplitAttentionMap',
    'check_data',
]
