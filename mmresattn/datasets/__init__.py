from .attention_maps import LoadAttentionMap
from .batch_transforms import BatchProgressiveResize, BatchRandomCrop, BatchRandomErasing, BatchRandomFlip
from .broken_images import BrokenImagesHook, LoadCheckedImage
from .captions import FlipCaption, KarpathyCaptions, read_captions
from .celeba import CELEBA_ATTRIBUTES, CelebAAttributes
from .checks import check_data, innermost_data_sets
from .class_attributes import ClassAttributes
from .corrections import Correction, Corrections, LoadCorrection, ReplaceErased
from .dense_checks import check_dense_data, set_classes
from .image_arrays import ImageArrays
from .image_files import BrokenImage, check_image, find_image_files
from .image_folders import ImageFolders
from .in_memory import InMemory, KeepInMemory
from .noisy_labels import NoisyLabels
from .photo_folder import PhotoFolder, set_num_classes
from .value_list import ValueList, read_values

__all__ = [
    'CELEBA_ATTRIBUTES',
    'BatchProgressiveResize',
    'BatchRandomCrop',
    'BatchRandomErasing',
    'BatchRandomFlip',
    'BrokenImage',
    'BrokenImagesHook',
    'CelebAAttributes',
    'ClassAttributes',
    'Correction',
    'Corrections',
    'FlipCaption',
    'InMemory',
    'ImageArrays',
    'ImageFolders',
    'KarpathyCaptions',
    'KeepInMemory',
    'LoadAttentionMap',
    'LoadCheckedImage',
    'LoadCorrection',
    'NoisyLabels',
    'PhotoFolder',
    'ReplaceErased',
    'ValueList',
    'check_data',
    'check_dense_data',
    'check_image',
    'find_image_files',
    'innermost_data_sets',
    'read_captions',
    'read_values',
    'set_classes',
    'set_num_classes',
]
