"""One road from a file to a picture.

File, array or data set -> :class:`ImagePipeline`: the config's own loading and test pipeline -> :func:`record_samples`:
network and taps -> :func:`place_maps`: maps by their kind, laid over the original -> :func:`overlay` or a figure.
"""

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
    short_name,
    spatial_maps,
    strongest_channels,
)
from .cam import METHODS as CAM_METHODS
from .cam import cam_layers, class_activation_maps, default_layer
from .caption_figure import caption_figure
from .dense_predictions import dense_title, draw_prediction
from .image_pipeline import ImagePipeline, ImageSample, data_set_sample
from .image_sources import ImageSources, UniqueNames, data_set_root, relative_name
from .original_image import View, maps_in_view, maps_on_images, run_and_follow
from .overlay import colour_table, overlay, resize_map, show_image
from .recording import batches_of_one_shape, place_maps, positions_of, record_samples
from .text import class_names, label_text, plain_text, prediction_title

__all__ = [
    'CAM_METHODS',
    'REDUCTIONS',
    'ImagePipeline',
    'ImageSample',
    'ImageSources',
    'UniqueNames',
    'View',
    'attention_figure',
    'batches_of_one_shape',
    'cam_layers',
    'caption_figure',
    'check_suffix',
    'class_activation_maps',
    'class_names',
    'colour_table',
    'data_set_root',
    'data_set_sample',
    'default_layer',
    'dense_title',
    'draw_prediction',
    'label_text',
    'map_grid',
    'maps_in_view',
    'place_maps',
    'maps_on_images',
    'mask_figure',
    'overlay',
    'pairwise_attention',
    'plain_text',
    'positions_of',
    'prediction_title',
    'record_mask_steps',
    'record_samples',
    'reduce_channels',
    'relative_name',
    'resize_map',
    'run_and_follow',
    'save_figure',
    'short_name',
    'show_image',
    'spatial_maps',
    'strongest_channels',
]
