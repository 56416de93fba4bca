"""Weights of a checkpoint in a model: compared first, loaded if they fit, and what is new in the model is named."""

import logging
import warnings
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from ..utils import listed
from .loader import CheckpointError, read_checkpoint
from .record import other_layers, other_preprocessing

# Weights that depend on the number of classes in the heads of other packages, which do not declare `class_weights`.
CLASS_WEIGHTS = {
    # MMPretrain
    'ArcFaceClsHead': ('norm_product',),
    'ConformerHead': ('conv_cls_head', 'trans_cls_head'),
    'CSRAClsHead': ('csra_heads',),
    'DeiTClsHead': ('layers.head', 'layers.head_dist'),
    'EfficientFormerClsHead': ('head', 'dist_head'),
    'LeViTClsHead': ('head', 'head_dist'),
    'LinearClsHead': ('fc',),
    'MultiLabelLinearClsHead': ('fc',),
    'StackedLinearClsHead': ('layers.-1',),  # the last
    'VigClsHead': ('fc2',),
    'VisionTransformerClsHead': ('layers.head',),
    # MMDetection
    'BBoxHead': ('fc_cls', 'fc_reg'),
    'FCNMaskHead': ('conv_logits',),
    'RetinaHead': ('retina_cls',),
    # MMSegmentation
    'BaseDecodeHead': ('conv_seg',),
}


def class_weights(model: nn.Module) -> Iterator[str]:
    """Names of the parameters, buffers and modules of a model that depend on the number of classes.

    A module declares its own as ``class_weights``, names relative to it.
    """
    for prefix, module in model.named_modules():
        declared = getattr(type(module), 'class_weights', None)
        if declared is None:
            kinds = (kind.__name__ for kind in type(module).__mro__)
            declared = next((CLASS_WEIGHTS[kind] for kind in kinds if kind in CLASS_WEIGHTS), ())
        for name in declared:
            if name.endswith('.-1'):
                name = f'{name[:-3]}.{len(module.get_submodule(name[:-3])) - 1}'
            yield f'{prefix}.{name}' if prefix else name


def added_layers(model: nn.Module) -> Iterator[str]:
    """Names of the attention layers that a checkpoint of the plain network lacks.

    They are those with a ``place`` in the blocks of a backbone, and the children of necks and heads with ``added``.
    """
    for name, module in model.named_modules():
        if getattr(type(module), 'place', None) in ('branch', 'after'):
            yield name
        elif getattr(type(module), 'added', False):
            yield from (f'{name}.{child}' for child, _ in module.named_children())


def is_under(name: str, parts: Collection[str]) -> bool:
    """Whether a weight is one of these or in one of these modules."""
    return any(name == part or name.startswith(f'{part}.') for part in parts)


def load_weights(
    model: nn.Module,
    checkpoint: Mapping,
    source: str,
    *,
    fine_tune: bool = False,
    prefix: str | None = None,
    new: Collection[str] = (),
    how: str = 'Give the config with which it was trained, or set arch or num_classes to those of the file.',
) -> None:
    """Load weights into a model if they fit. If they do not, the model stays as it was.

    Args:
        model (nn.Module): The model, perhaps in a wrapper such as DDP; or a part of one.
        checkpoint (Mapping): From :func:`read_checkpoint`: with ``state_dict`` and ``meta``; or the weights by name.
        source (str): Where they come from, for messages.
        fine_tune (bool): Whether weights that depend on the number of classes, and attention layers that the file
            does not have at all, may keep their initial values. The log names those that do. Defaults to False.
        prefix (str, optional): The model is a part, of this name in the checkpoint (``'backbone.'``; ``''`` if the
            checkpoint is of the part). What the file has for children that the model was not built with is left out.
            Defaults to None: the model is the whole.
        new (Collection[str]): Further parts of the model that may keep their initial values. Defaults to none.
        how (str): What to do if it does not fit, for the message.

    Raises:
        CheckpointError: If names, shapes, types or settings differ, or weights are not finite. The message counts and
            names them.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    fitting, fresh = compare_weights(model, checkpoint, source, fine_tune=fine_tune, prefix=prefix, new=new, how=how)
    own = model.state_dict()
    with torch.no_grad():
        for name, weight in fitting.items():
            own[name].copy_(weight)
    if fresh:
        print_log(f'Not from {source}, but freshly initialised: {", ".join(fresh)}.', logger='current')


def load_checkpoint(model: nn.Module, address: str | Path) -> dict:
    """Load a checkpoint that must fit exactly.

    Args:
        model (nn.Module): The model.
        address (str | Path): Path or address of the checkpoint.

    Returns:
        dict: Its metadata; may be empty. ``dataset_meta`` names the classes, ``mmresattn`` says what the weights were
        trained for: ``preprocessing``, and in published weights ``input_size``.

    Raises:
        CheckpointError: See :func:`read_checkpoint` and :func:`load_weights`.
    """
    checkpoint = read_checkpoint(address)
    load_weights(model, checkpoint, str(address))
    return checkpoint['meta']


def compare_weights(
    model: nn.Module,
    checkpoint: Mapping,
    source: str,
    *,
    fine_tune: bool = False,
    prefix: str | None = None,
    new: Collection[str] = (),
    how: str = '',
) -> tuple[dict[str, Tensor], list[str]]:
    """As :func:`load_weights`, but the model, which may be on the meta device, stays as it is.

    Returns:
        Tuple[dict, list]: The weights to load, by their names in the model, and what stays fresh.
    """
    given = checkpoint.get('state_dict', checkpoint)
    prefix_dot = f'{prefix.rstrip(".")}.' if prefix else ''
    own = model.state_dict()
    what = 'the model' if prefix is None else f'this {type(model).__name__}'
    if not any(name.startswith(prefix_dot) for name in given):
        begin = f'Its names begin with {listed(sorted({name.partition(".")[0] for name in given}), 5)}.'
        hint = _other_prefix(own, given, prefix_dot) or begin
        raise CheckpointError(f'{source} has no weights under {prefix_dot!r}. {hint}')
    taken = _as_taken(model, given, prefix_dot)

    counters = 'num_batches_tracked'
    missing = [name for name in own if name not in taken and not name.endswith(counters)]
    reshaped = [name for name in own if name in taken and taken[name].shape != own[name].shape]
    left = [name for name in taken if name not in own and not name.endswith(counters)]
    if prefix is not None:  # stages that a part was not built with are no mistake
        depth = 1 if len({name.split('.')[0] for name in own}) > 1 else 2  # TIMMBackbone has all in one child
        children = {tuple(name.split('.')[:depth]) for name in own}
        left = [name for name in left if tuple(name.split('.')[:depth]) in children]
    by_class = class_weights(model) if fine_tune else ()
    fresh = [part for part in by_class if any(is_under(name, [part]) for name in (*missing, *reshaped, *left))]
    held = [name for name in taken if not name.endswith(counters)]  # BatchNorm takes old files as if they had counters
    added = [part for part in added_layers(model) if any(is_under(name, [part]) for name in missing)]
    fresh += [part for part in added if fine_tune and not any(is_under(name, [part]) for name in held)]
    fresh += [part for part in new if any(is_under(name, [part]) for name in missing)]
    fresh = list(dict.fromkeys(fresh))
    kept = [name for name in own if name in taken and not is_under(name, fresh)]
    missing, reshaped, left = ([n for n in names if not is_under(n, fresh)] for names in (missing, reshaped, left))
    wrong = {
        'not in the file': missing,
        'of another shape': [f'{name} {tuple(taken[name].shape)} for {tuple(own[name].shape)}' for name in reshaped],
        'not in the model': left,
    }
    fitting = {name: taken[name] for name in kept if name not in reshaped}
    if any(wrong.values()):
        found = '; '.join(f'{len(names)} {kind} ({listed(names)})' for kind, names in wrong.items() if names)
        under = f' under {prefix!r}' if prefix else ''
        raise CheckpointError(
            f'{source} does not fit {what}: {len(fitting)} of its {len(own)} parameters and buffers '
            f'are in the file{under} with the same shape. {found}. {_other_prefix(own, given, prefix_dot)}{how}'
        )
    bad = [
        f'{name} ({kind})'
        for name, weight in fitting.items()
        if not name.endswith(counters) and (kind := _unfit(weight, own[name]))
    ]
    if bad:
        raise CheckpointError(f'{source} has {len(bad)} weights that cannot be used: {listed(bad)}.')
    meta = checkpoint.get('meta') or {}
    origins = {id(weight): name for name, weight in given.items()}  # some models move weights, others reshape them
    loaded = {name: origins.get(id(weight), prefix_dot + name) for name, weight in fitting.items()}
    differing = other_layers(model, meta, loaded, prefix_dot, prefix is not None)
    if prefix is None and fine_tune and (images := other_preprocessing(model, meta)):
        print_log(f'{source}: {images[0]}.', logger='current', level=logging.WARNING)
    elif prefix is None:
        differing += other_preprocessing(model, meta)
    if differing:
        raise CheckpointError(
            f'{source} has weights of the same shapes as {what}, but not for the same network: '
            f'{"; ".join(differing[:3])}{"; ..." if len(differing) > 3 else ""}.'
        )
    return fitting, fresh


class _Take(nn.Module):
    """Runs the hooks and overrides with which the modules of a model take old names and shapes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, state: OrderedDict, versions: Mapping[str, dict]) -> None:
        for name, module in self.model.named_modules():
            prefix = f'{name}.' if name else ''
            module._load_from_state_dict(state, prefix, versions.get(name, {}), False, [], [], [])


def _as_taken(model: nn.Module, given: Mapping[str, Tensor], prefix: str) -> OrderedDict[str, Tensor]:
    """The weights as the model takes them, which may rename or resize some. The model itself is not touched."""
    state = OrderedDict((key[len(prefix) :], given[key]) for key in given if key.startswith(prefix))
    versions = {
        key[len(prefix) :]: value
        for key, value in (getattr(given, '_metadata', None) or {}).items()
        if f'{key}.'.startswith(prefix)
    }
    values = {f'model.{name}': torch.empty_like(value, device='meta') for name, value in model.state_dict().items()}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings('ignore', '.*copying from a non-meta parameter')
        torch.func.functional_call(_Take(model), values, (state, versions))
    return state


def _unfit(given: Tensor, own: Tensor) -> str:
    """Why a weight cannot be used; '' if it can."""
    if given.is_meta:
        return 'without values'
    if given.layout is not torch.strided or given.is_quantized:
        return 'sparse or quantised'
    if given.is_complex() or given.is_floating_point() != own.is_floating_point():
        return f'{str(given.dtype).removeprefix("torch.")} for {str(own.dtype).removeprefix("torch.")}'
    if given.is_floating_point() and not given.isfinite().all():
        return 'NaN' if given.isnan().any() else 'infinite'
    return ''


def _other_prefix(own: Collection[str], given: Collection[str], prefix: str) -> str:
    """A hint if the file has these weights under another name."""
    first = next(iter(own))
    for key in given:
        if key.endswith(first) and (other := key[: -len(first)]) != prefix:
            if sum(f'{other}{name}' in given for name in own) > len(own) / 2:
                return f'They are under {other!r} in the file: set prefix={other!r}. '
    return ''
