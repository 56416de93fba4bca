"""From what the network gets to maps on the image: the second half of the road to a picture."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.model import BaseModel
from mmpretrain.models import BaseClassifier
from mmpretrain.models.utils import MultiModalDataPreprocessor
from torch import Tensor

from ..models.layers import record_attention
from .attention_figure import REDUCTIONS, reduce_channels, spatial_maps
from .image_pipeline import ImageSample
from .original_image import maps_in_view


def batches_of_one_shape(samples: Iterable[ImageSample], batch_size: int) -> Iterator[list[ImageSample]]:
    """Neighbouring samples whose inputs have one shape, so that nothing is padded.

    Args:
        samples (Iterable[ImageSample]): Any number of them; no more than a batch is held at once.
        batch_size (int): At most so many together, at least 1.

    Yields:
        List[ImageSample]: A batch.
    """
    for _, alike in itertools.groupby(samples, lambda sample: sample.packed['inputs'].shape):
        while batch := list(itertools.islice(alike, batch_size)):
            yield batch


@torch.no_grad()
def record_samples(
    model: BaseModel, samples: Sequence[ImageSample], layers: Sequence[str] | None = None, mode: str = 'predict'
) -> None:
    """Run a network on some samples, and note its predictions and maps in them.

    Args:
        model (BaseModel): Model of OpenMMLab, in evaluation mode, on any device.
        samples (Sequence[ImageSample]): Samples whose inputs have one shape. Afterwards they have ``prediction``, in
            mode ``'predict'``; ``maps``, the mean of several passes that run side by side; and ``input_shape``.
        layers (Sequence[str], optional): Names of the maps. Defaults to all, even if there are none.
        mode (str): Of the model. Defaults to ``'predict'``.
    """
    stacked = isinstance(model, BaseClassifier) or isinstance(model.data_preprocessor, MultiModalDataPreprocessor)
    collate = default_collate if stacked else pseudo_collate
    data = model.data_preprocessor(collate([sample.packed for sample in samples]), False)
    inputs = data['images'] if 'images' in data else data['inputs']
    with record_attention(model, layers) as maps:
        predictions = model(**data, mode=mode)
    per_sample = {name: passes.unflatten(0, (-1, len(samples))).mean(0).cpu() for name, passes in maps.items()}
    for i, sample in enumerate(samples):
        sample.prediction = predictions[i] if mode == 'predict' else None
        sample.maps = {name: attention[i] for name, attention in per_sample.items()}
        sample.input_shape = tuple(inputs.shape[-2:])


def positions_of(model: BaseModel, sample: ImageSample, query: tuple[float, float] | None = None) -> dict[str, Tensor]:
    """Maps (C, h, w) over what the network got, of all of a sample's maps that have positions.

    Args:
        model (BaseModel): The model.
        sample (ImageSample): A sample from :func:`record_samples`.
        query (Tuple[float, float], optional): Row and column of the image, in pixels, from which self-attention looks.
            Defaults to the mean over all positions.

    Returns:
        Dict[str, Tensor]: By name; gates of channels are left out.
    """
    maps = {name: attention[None] for name, attention in sample.maps.items()}
    place = None if query is None else sample.view.place(*query)
    return {name: spatial[0] for name, spatial in spatial_maps(model, maps, sample.input_shape, place).items()}


def place_maps(
    model: BaseModel,
    sample: ImageSample,
    reduction: str = REDUCTIONS[0],
    query: tuple[float, float] | None = None,
) -> dict[str, Tensor]:
    """A sample's maps at the size of its image.

    Args:
        model (BaseModel): The model.
        sample (ImageSample): A sample from :func:`record_samples`, with its view.
        reduction (str): Of the channels or heads, as for :func:`~mmresattn.visualization.reduce_channels`.
        query (Tuple[float, float], optional): As for :func:`positions_of`.

    Returns:
        Dict[str, Tensor]: By name a map (H, W); NaN where the network did not see the image.
    """
    return {
        name: maps_in_view(reduce_channels(spatial[None], reduction)[0], sample.view, sample.input_shape)[0]
        for name, spatial in positions_of(model, sample, query).items()
    }
