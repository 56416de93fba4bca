"""What a checkpoint must say of its network because names and shapes of weights do not show it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

KEY = 'mmresattn'  # of this record in the metadata of a checkpoint
FIELDS = ('kernel_size', 'stride', 'padding', 'dilation', 'ceil_mode')
PLAIN_CONV = dict(stride=1, dilation=1)
POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def record(model: nn.Module) -> dict[str, Any]:
    """Strides, pooling and normalisation of a model, for the metadata of a checkpoint: ``meta['mmresattn']``.

    Args:
        model (nn.Module): The model.

    Returns:
        dict: Plain values: ``layers``, by module name the settings of every pooling and of every convolution with a
        stride or dilation; if it has a data preprocessor, ``preprocessing`` with ``mean``, ``std`` and ``to_rgb``; and
        whatever else the model's own method ``record()`` says, if it has one.
    """
    layers = {}
    for name, module in model.named_modules():
        if isinstance(module, POOLS):
            layers[name] = {field: _plain(getattr(module, field)) for field in FIELDS if hasattr(module, field)}
        elif isinstance(module, nn.Conv2d) and (max(module.stride) > 1 or max(module.dilation) > 1):
            layers[name] = {field: _plain(getattr(module, field)) for field in ('stride', 'dilation')}
    found = dict(layers=layers)
    preprocessor = getattr(model, 'data_preprocessor', None)
    if isinstance(getattr(preprocessor, 'mean', None), torch.Tensor):
        found['preprocessing'] = dict(
            mean=[round(value, 4) for value in preprocessor.mean.flatten().tolist()],
            std=[round(value, 4) for value in preprocessor.std.flatten().tolist()],
            to_rgb=bool(getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', False))),
        )
    return found | (model.record() if hasattr(model, 'record') else {})


def _plain(value) -> int | bool | list[int]:
    """A setting of a layer; square ones as one number."""
    if isinstance(value, tuple | list):
        return value[0] if len(set(value)) == 1 else list(value)
    return value


def other_layers(
    model: nn.Module, meta: Mapping[str, Any], loaded: Mapping[str, str], prefix: str = '', part: bool = False
) -> list[str]:
    """Where a model is another network than that of a checkpoint although its weights have the same shapes.

    Args:
        model (nn.Module): The model, or a part of one.
        meta (Mapping[str, Any]): Metadata of the checkpoint.
        loaded (Mapping[str, str]): Weights of the model that the checkpoint has, with the name of each in the
            checkpoint. Where several have the same name, as in the two branches of an Attention Branch Network, one of
            them has to have the settings of the checkpoint.
        prefix (str): Name of that part in the checkpoint, with a dot at its end. Defaults to ''.
        part (bool): Whether it is a part. It may have other strides and dilation, as backbones for dense prediction
            do, unless a block strides in another of its convolutions. Defaults to False.

    Returns:
        List[str]: A sentence for each difference, or for what the checkpoint should say and does not.
    """
    saved = meta.get(KEY)
    saved = saved.get('layers') if isinstance(saved, dict) else None
    if not isinstance(saved, dict):
        return [
            f'{type(module).__name__} has {", ".join(f"{key}={value!r}" for key, value in settings.items())}, which '
            'the file does not state. Published checkpoints of MMPretrain, torchvision and timm have '
            "style='pytorch' and caffe_pool=False. For those set --cfg-options model.backbone.style=pytorch "
            'model.backbone.caffe_pool=False, or take a config that has them. Files of the authors of SENet, of '
            "Cadene and of timm's legacy models come in by tools/model_converters/import_official.py. If the file is "
            'of exactly this network, save it with meta=dict(mmresattn=mmresattn.weights.record(model))'
            for module in model.modules()
            if (settings := getattr(module, 'hidden_settings', None))
        ]
    own = record(model)['layers']
    differing, equal = {}, set()  # by the name in the checkpoint
    for name, module in model.named_modules():
        source = loaded.get(f'{name}.weight', prefix + f'{name}.weight').removesuffix('.weight')
        theirs = saved.get(source)
        if isinstance(module, nn.Conv2d) and f'{name}.weight' in loaded:
            ours, theirs = own.get(name, PLAIN_CONV), theirs or PLAIN_CONV
            same = ours == theirs
            if part:  # which of a block's convolutions stride is Caffe's or PyTorch's style
                elsewhere = _strided(saved, source.rpartition('.')[0])
                same = not elsewhere or _strided(own, name.rpartition('.')[0]) <= elsewhere
        elif isinstance(module, POOLS) and theirs:
            ours = own[name]
            same = ours == theirs
        else:
            continue
        if same:
            equal.add(source)
        else:
            changed = [key for key in ours if ours[key] != theirs.get(key)]
            differing[source] = (
                f'{name} has {", ".join(f"{key} {theirs.get(key)}" for key in changed)} in the file and '
                f'{", ".join(f"{key} {ours[key]}" for key in changed)} in the model'
            )
    return [sentence for source, sentence in differing.items() if source not in equal]


def _strided(layers: Mapping[str, dict], block: str) -> set[str]:
    """The children of a block that have a stride."""
    children = {name.rpartition('.')[2]: layer for name, layer in layers.items() if name.rpartition('.')[0] == block}
    return {name for name, layer in children.items() if layer['stride'] != 1}


def other_preprocessing(model: nn.Module, meta: Mapping[str, Any]) -> list[str]:
    """Where images are normalised in another way than those on which the weights of a checkpoint were trained."""
    saved, own = meta.get(KEY), record(model).get('preprocessing')
    theirs = saved.get('preprocessing') if isinstance(saved, dict) else None
    if not own or not theirs or own == theirs:
        return []
    return [f'images are normalised by {theirs} in the file and by {own} in the model']
