from .batch_transforms import BatchProgressiveResize, BatchRandomCrop, BatchRandomErasing, BatchRandomFlip
from .checks import check_data
from .image_arrays import ImageArrays
from .in_memory import InMemory
from .noisy_labels import NoisyLabels

__all__ = [
    'BatchProgressiveResize',
    'BatchRandomCrop',
    'BatchRandomErasing',
    'BatchRandomFlip',
    'InMemory',
    'ImageArrays',
    'NoisyLabels',
    'check_data',
]
