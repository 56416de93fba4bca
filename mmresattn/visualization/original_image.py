"""From the network's grid back to the picture that a person sees."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import Tensor


def maps_on_images(maps: Tensor, data_samples: Sequence[BaseDataElement]) -> list[Tensor]:
    """Lay maps over the images as they were before MMDetection or MMSegmentation resized and padded them.

    A map covers the padded image, whose padding is on the right and at the bottom: it is resized to that, cut to the
    image in it, and resized to the original.

    Args:
        maps (Tensor): Maps (N, C, h, w) of a batch, such as one of
            :func:`~mmresattn.models.layers.record_attention`.
        data_samples (Sequence[BaseDataElement]): The N samples of that batch, as the model returned them. They say
            ``ori_shape``, ``img_shape`` (after resizing) and, if padded, ``batch_input_shape`` or ``pad_shape``. They
            were not mirrored.

    Returns:
        List[Tensor]: For each image its maps (C, H, W) at its original height and width.

    Raises:
        ValueError: If the numbers of maps and samples differ, or if a sample does not say its shapes.
    """
    if len(maps) != len(data_samples):
        raise ValueError(f'{len(maps)} maps are not of these {len(data_samples)} images: give both of one batch.')
    placed = []
    for one, sample in zip(maps, data_samples):
        shapes = sample.metainfo
        if not {'ori_shape', 'img_shape'} <= shapes.keys():
            raise ValueError(
                f'A data sample must say its ori_shape and img_shape; this one says {sorted(shapes)}. Use the samples '
                'that the model returned, and meta_keys of the pipeline that keep both.'
            )
        padded = shapes.get('batch_input_shape', shapes.get('pad_shape', shapes['img_shape']))
        height, width = shapes['img_shape'][:2]
        on_input = _resize(one, padded)[:, :height, :width]
        placed.append(_resize(on_input, shapes['ori_shape']))
    return placed


def _resize(maps: Tensor, shape: Sequence[int]) -> Tensor:
    return F.interpolate(maps[None], tuple(shape[:2]), mode='bilinear', align_corners=False)[0]
