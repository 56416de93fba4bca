from .attention_figure import attention_figure, reduce_channels
from .cam import METHODS as CAM_METHODS
from .cam import cam_layers, class_activation_maps, default_layer
from .original_image import maps_on_images

__all__ = [
    'CAM_METHODS',
    'attention_figure',
    'cam_layers',
    'class_activation_maps',
    'default_layer',
    'maps_on_images',
    'reduce_channels',
]
