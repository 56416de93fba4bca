from .attention_figure import (
    REDUCTIONS,
    attention_figure,
    check_suffix,
    map_grid,
    mask_figure,
    pairwise_attention,
    record_mask_steps,
    reduce_channels,
    save_figure,
    spatial_maps,
    strongest_channels,
)
from .cam import METHODS as CAM_METHODS
from .cam import cam_layers, class_activation_maps, default_layer
from .original_image import View, maps_in_view, maps_on_images, pipeline_view
from .overlay import overlay

__all__ = [
    'CAM_METHODS',
    'REDUCTIONS',
    'View',
    'attention_figure',
    'cam_layers',
    'check_suffix',
    'class_activation_maps',
    'default_layer',
    'map_grid',
    'maps_in_view',
    'maps_on_images',
    'mask_figure',
    'overlay',
    'pairwise_attention',
    'pipeline_view',
    'record_mask_steps',
    'reduce_channels',
    'save_figure',
    'spatial_maps',
    'strongest_channels',
]
