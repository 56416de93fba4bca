"""Weights for others: half precision, as safetensors, with what is needed to use them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from ..version import __version__
from .files import write_whole
from .loader import METADATA
from .record import KEY, record


def half(name: str, weight: Tensor) -> Tensor:
    """A weight in half precision; counters stay integers.

    Raises:
        ValueError: If half precision cannot hold it.
    """
    rounded = weight.half() if weight.is_floating_point() else weight
    if not rounded.isfinite().all():
        raise ValueError(
            f'{name} has values up to {weight.abs().max():.3g}; half precision holds none above 65504. Publish the '
            'checkpoint itself.'
        )
    return rounded


def metadata(
    model: nn.Module,
    config: str,
    dataset_meta: Mapping[str, Any] | None = None,
    input_size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """What is needed to use the weights of a model, for their file.

    Args:
        model (nn.Module): The model. Its weights may be on the meta device, its data preprocessor may not.
        config (str): Name of its config.
        dataset_meta (Mapping[str, Any], optional): Metadata of the data set, of which ``classes`` are kept.
        input_size (Tuple[int, int], optional): Height and width of the images on which it was trained.

    Returns:
        dict: ``dataset_meta`` and, under ``mmresattn``, the record of the network with ``config``, ``version`` and
        ``input_size``.
    """
    about = dict(record(model), config=config, version=__version__)
    if input_size is not None:
        about['input_size'] = list(input_size)
    meta = {KEY: about}
    if classes := (dataset_meta or {}).get('classes'):
        meta['dataset_meta'] = dict(classes=[str(name) for name in classes])
    return meta


def write_weights(state: Mapping[str, Tensor], meta: Mapping[str, Any], out: str | Path) -> str:
    """Write weights and their metadata, for :func:`read_checkpoint`. The same weights give the same file.

    Args:
        state (Mapping[str, Tensor]): Weights by name.
        meta (Mapping[str, Any]): From :func:`metadata`.
        out (str | Path): File to write, ``.safetensors``.

    Returns:
        str: SHA-256 of the file, in hexadecimal digits.
    """
    # A single key: safetensors orders several at random.
    content = save(
        {name: value.contiguous() for name, value in state.items()}, {METADATA: json.dumps(meta, sort_keys=True)}
    )
    write_whole(out, content)
    return hashlib.sha256(content).hexdigest()


def publish(
    model: nn.Module,
    out: str | Path,
    config: str,
    dataset_meta: Mapping[str, Any] | None = None,
    input_size: tuple[int, int] | None = None,
) -> str:
    """Write the weights of a model in half precision.

    Args:
        model (nn.Module): The model.
        out (str | Path): File to write, ``.safetensors``.
        config (str): Name of its config.
        dataset_meta (Mapping[str, Any], optional): See :func:`metadata`.
        input_size (Tuple[int, int], optional): See :func:`metadata`.

    Returns:
        str: SHA-256 of the file, in hexadecimal digits.

    Raises:
        ValueError: If half precision cannot hold a weight.
    """
    state = {name: half(name, weight) for name, weight in model.state_dict().items()}
    return write_weights(state, metadata(model, config, dataset_meta, input_size), out)
