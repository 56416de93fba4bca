"""Residual Attention Networks that begin as a published residual network, with equal outputs.

The trunk of a Residual Attention Network is made of the units of published networks. Let its features be ``s`` times
those of the published network; ``s`` is 1 behind the stem. Along the trunk:

- *Mask.* It starts as the same number ``M0`` everywhere, so the merge multiplies ``s`` by ``1 + M0`` (by ``M0`` without
  attention residual learning). Sigmoids give 1/2 of zero, hence the last convolution of the mask is zero; its gradient
  is not, so the mask learns from the first step. An L2 normalisation over C channels gives ``1 / sqrt(C)`` of any
  constant; at zero itself its gradient would be infinite.
- *Unit.* Its first normalisation meets ``s`` times what it knows: mean times ``s``, variance times ``s`` squared. Its
  branch ends in a linear layer, whose weights times ``s`` give ``s * (x + f(x))``. A unit with a projection leaves that
  end alone: it has forgotten the scale of its input, and ``s`` is 1 again.
- *Unit without a counterpart*, where the trunk has more of them: the end of its branch is zero, so it is the identity
  (behind a ReLU too: what it takes is not negative).
- *End.* A last stage without masks has ``s = 1``. Otherwise the closing normalisation of a pre-activation network, or
  the classifier, divides by ``s``.

In training BatchNorm divides by the deviation of the batch, in which ``s`` cancels too, up to its epsilon.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule, initialize, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from ..models.backbones.residual_attention_net import ARCHITECTURES, INIT_CFG, STEMS, Architecture, ResidualAttentionNet
from ..models.layers import AttentionModule, channel_attention
from ..utils import listed
from .loader import read_checkpoint

Weights = dict[str, Tensor]


class Layout(NamedTuple):
    """How a library names the weights of residual networks."""

    anchor: str  # a weight by which it is recognised
    stems: tuple[str, ...]  # stems of ours that compute what its stem does
    renames: dict[str, str]  # the first pattern that a name begins with gives our name of stem, units and closing norm


LAYOUTS = {
    'ResNet of MMPretrain, torchvision or timm': Layout(
        'layer1.0.conv1.weight',
        ('resnet',),
        {r'conv1\.': 'stem.0.', r'bn1\.': 'stem.1.0.', r'layer(\d+)\.(\d+)\.': r'unit.\1.\2.'},
    ),
    'ResNetV2 of timm': Layout(
        'stages.0.blocks.0.conv1.weight',
        ('resnetv2',),
        {
            r'stem\.conv\.': 'stem.0.',
            r'stem\.': 'stem.',
            r'stages\.(\d+)\.blocks\.(\d+)\.norm(\d)\.': r'unit.\1.\2.norm\3.0.',
            r'stages\.(\d+)\.blocks\.(\d+)\.downsample\.conv\.': r'unit.\1.\2.shortcut.',
            r'stages\.(\d+)\.blocks\.(\d+)\.': r'unit.\1.\2.',
            r'norm\.': 'norm.',
        },
    ),
    'residual network of mmresattn': Layout(
        'stage1.unit1.conv1.weight',
        ('cifar', 'conv'),  # of its ImageNet stems the weights do not say which it is
        {r'stem\.': 'stem.', r'stage(\d+)\.(?:unit)?(\w+)\.': r'unit.\1.\2.', r'norm\d+\.0\.': 'norm.'},
    ),
}


@dataclass
class Source:
    """A published residual network, its weights under the names that they have in our units."""

    name: str
    layout: str
    stem: Weights
    stages: list[list[Weights]]  # of each stage its units
    closing: Weights  # the normalisation at the end of a pre-activation network
    classifier: Weights  # weight (classes, channels) and bias, or nothing
    left: list[str]  # names of the checkpoint that are neither
    meta: dict = field(default_factory=dict)

    @property
    def units(self) -> tuple[int, ...]:
        """Number of units of each stage."""
        return tuple(map(len, self.stages))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(_last_conv(units[-1]).shape[0] for units in self.stages)

    @property
    def unit(self) -> str:
        """Kind of its units: a key of ``UNITS``, or a description of another kind."""
        first = self.stages[0][0]
        conv2 = first.get('conv2.weight')
        if conv2 is None or 'conv1.weight' not in first:
            return f'unknown, with {", ".join(first)}'
        groups = conv2.shape[0] // conv2.shape[1]
        if 'conv3.weight' not in first:
            return 'basic' if groups == 1 else f'basic in {groups} groups'
        kind = 'preact' if 'norm1.0.weight' in first else 'resnext' if groups == 32 else 'bottleneck'
        return kind if groups == (32 if kind == 'resnext' else 1) else f'{kind} in {groups} groups'

    def __str__(self) -> str:
        return f'{self.name} ({self.layout}: {", ".join(map(str, self.units))} units, {self.unit})'


def read_source(checkpoint: str, prefix: str | None = None) -> Source:
    """Read a published residual network.

    Args:
        checkpoint (str): Whatever :func:`~mmresattn.weights.read_checkpoint` reads, ``mmpretrain::NAME`` for weights of
            MMPretrain's model zoo, or ``timm::NAME``.
        prefix (str, optional): What its names begin with, such as ``'encoder_q.'``. Found by itself unless the
            checkpoint has several networks.

    Returns:
        Source: The network.

    Raises:
        ValueError: If the checkpoint has no residual network of a known layout, or several.
    """
    content = read_checkpoint(find_weights(checkpoint))
    state = content['state_dict']
    found = [
        (name, key.removesuffix(layout.anchor))
        for name, layout in LAYOUTS.items()
        for key in state
        if key == layout.anchor or key.endswith(f'.{layout.anchor}')
    ]
    if not found:
        known = '; '.join(f'{name} has {layout.anchor}' for name, layout in LAYOUTS.items())
        raise ValueError(f'{checkpoint} has no residual network of a known layout ({known}).')
    prefixes = [known for _, known in found]
    if prefix is None and len(found) > 1 or prefix is not None and prefix not in prefixes:
        raise ValueError(f'{checkpoint} has residual networks under {prefixes}: choose one of them by prefix.')
    layout, prefix = found[0 if prefix is None else prefixes.index(prefix)]
    stem, units, closing, classifier, left = {}, {}, {}, {}, []
    for key, value in state.items():
        name = key.removeprefix(prefix) if key.startswith(prefix) else None
        name = name and _rename(name, LAYOUTS[layout].renames)
        if name is None:
            left.append(key)
        elif name.startswith('unit.'):
            _, stage, unit, name = name.split('.', 3)
            units.setdefault(int(stage), {}).setdefault(unit, {})[name] = value
        else:
            part, _, name = name.partition('.')
            (stem if part == 'stem' else closing)[name] = value
    masks = sorted({unit for stage in units.values() for unit in stage if not unit.isdigit()})
    if masks:
        raise ValueError(
            f'{checkpoint} is a Residual Attention Network already: stage 1 has {masks[0]}. Load it with '
            "init_cfg=dict(type='ClassifierWeights', ...)."
        )
    stages = [[stage[unit] for unit in sorted(stage, key=int)] for _, stage in sorted(units.items())]
    width = _last_conv(stages[-1][-1]).shape[0]
    heads = [key for key in left if re.search(r'(^|\.)fc\.weight$', key) and state[key].shape[1] == width]
    if len(heads) == 1:
        classifier = dict(weight=state[heads[0]].flatten(1))
        if (bias := heads[0].replace('fc.weight', 'fc.bias')) in state:
            classifier['bias'] = state[bias]
    left = [key for key in left if re.sub('(weight|bias)$', 'weight', key) not in heads]
    return Source(checkpoint, layout, stem, stages, closing, classifier, left, content['meta'])


def _last_conv(unit: Weights) -> Tensor:
    return unit[max(name for name in unit if re.fullmatch(r'conv\d\.weight', name))]


def find_weights(checkpoint: str) -> str:
    """The path or address of weights that a zoo has under a name.

    Raises:
        ValueError: If the zoo has no weights of that name.
    """
    zoo, _, name = str(checkpoint).rpartition('::')
    if zoo == 'mmpretrain':
        from mmpretrain.apis.model import ModelHub

        found = ModelHub.get(name).weights
    elif zoo == 'timm':
        import timm
        from huggingface_hub import hf_hub_download

        cfg = timm.models.get_pretrained_cfg(name)
        found = cfg and (cfg.url or cfg.hf_hub_id and hf_hub_download(cfg.hf_hub_id, 'model.safetensors'))
    elif zoo:
        raise ValueError(f'{checkpoint}: {zoo} is not a known zoo. Name weights as mmpretrain::NAME or timm::NAME.')
    else:
        return str(checkpoint)
    if not found:
        raise ValueError(f'{checkpoint}: {zoo} has no weights of that name.')
    return found


def _rename(name: str, renames: dict[str, str]) -> str | None:
    for pattern, ours in renames.items():
        if match := re.match(pattern, name):
            return match.expand(ours) + name[match.end() :]
    return None


class Step(NamedTuple):
    """One step along the trunk: a unit, or the merge of an attention module."""

    name: str
    module: nn.Module
    rank: tuple[int, int]  # units of the smallest ranks take the weights of the source


def walk(backbone: ResidualAttentionNet) -> Iterator[list[Step]]:
    """The trunk, stage by stage, in the order of the forward pass.

    Where the source has fewer units than a stage, its weights go to the first unit, which changes the shape, then to
    the units that masks weigh (of every module one before any has two), then to those after the modules, then to the
    rest.
    """
    for stage in backbone.stages:
        steps = []
        for name, block in getattr(backbone, stage).named_children():
            name = f'{stage}.{name}'
            if not isinstance(block, AttentionModule):
                steps.append(Step(name, block, (0, 0) if name.endswith('.unit1') else (2, 0)))
                continue
            for part, rank in (('before', 3), ('trunk', 1), ('after', 3)):
                steps += [Step(f'{name}.{part}.{k}', unit, (rank, k)) for k, unit in enumerate(getattr(block, part))]
                if part == 'trunk':
                    steps.append(Step(name, block, (4, 0)))
        yield steps


def match(steps: list[Step], units: list[Weights]) -> dict[str, Weights]:
    """The units of a stage that get weights of the source, in order; the others become the identity."""
    own = [step for step in steps if not isinstance(step.module, AttentionModule)]
    chosen = {step.name for step in sorted(own, key=lambda step: step.rank)[: len(units)]}  # sorted() is stable
    return dict(zip([step.name for step in own if step.name in chosen], units))


def merge_factor(module: AttentionModule) -> float:
    """By how much the merge of an attention module multiplies the trunk at the start."""
    constant = 1.0 if module.activation is channel_attention else 0.0
    before = torch.full((1, module.mask.linear[-1].out_channels, 2, 2), constant, dtype=torch.float64)
    return module.activation(before).flatten()[0].item() + module.attention_residual_learning


def stage_factors(backbone: ResidualAttentionNet) -> list[float]:
    """How many times as large as in the source the raw features of each stage are at the start.

    Stages whose units are pre-activation and which pass a normalisation (the last one) have factor 1 behind it.
    """
    factors, s = [], 1.0
    for steps in walk(backbone):
        s = 1.0 if _projects(steps[0].module) else s
        s *= prod(merge_factor(step.module) for step in steps if isinstance(step.module, AttentionModule))
        factors.append(s)
    return factors


def _projects(unit: nn.Module) -> bool:
    return getattr(unit, 'shortcut', None) is not None or getattr(unit, 'downsample', None) is not None


def for_larger_input(norm: Weights, s: float, eps: float) -> Weights:
    """A normalisation that makes of ``s * x`` what ``norm`` makes of ``x``.

    With ``s`` below 1, variances below epsilon would become negative. They stop at 0, and the weight makes up for it.
    """
    variance = (norm['running_var'].double() + eps) * s**2
    running_var = (variance - eps).clamp(min=0)
    return dict(
        norm,
        running_mean=norm['running_mean'].double() * s,
        running_var=running_var,
        weight=norm['weight'].double() * ((running_var + eps) / variance).sqrt(),
    )


def started_unit(unit: nn.Module, weights: Weights | None, s: float) -> tuple[Weights, float]:
    """Weights of a unit whose input is ``s`` times that of its counterpart, and the factor of its output.

    Without ``weights``, those of the counterpart, it becomes the identity.
    """
    if unit.preactivation:
        first, end, shortcut_norm = 'norm1.0', ['conv3.weight'], None
    else:
        last = 'bn3' if hasattr(unit, 'bn3') else 'bn2'
        first, end, shortcut_norm = 'bn1', [f'{last}.weight', f'{last}.bias'], 'downsample.1'
    if weights is None:
        own = unit.state_dict()
        return {name: torch.zeros_like(own[name]) for name in end}, s
    weights = dict(weights)

    def rescale(name: str) -> None:
        norm = {key.removeprefix(f'{name}.'): value for key, value in weights.items() if key.startswith(f'{name}.')}
        norm = for_larger_input(norm, s, unit.get_submodule(name).eps)
        weights.update({f'{name}.{key}': value for key, value in norm.items()})

    rescale(first)
    if _projects(unit):
        if shortcut_norm:
            rescale(shortcut_norm)
        return weights, 1.0
    weights.update({name: weights[name].double() * s for name in end})
    return weights, s


def started_mask(module: AttentionModule) -> Weights:
    """Weights that make the mask of an attention module the same everywhere."""
    *_, (norm, _), last = module.mask.linear
    number = len(module.mask.linear) - 1
    if module.activation is not channel_attention:
        return {f'mask.linear.{number}.weight': torch.zeros_like(last.weight)}
    # The normalisation before gives 1, and every row of the last convolution sums to 1: a constant whose gradient is
    # finite, for the convolution and for what comes before it.
    weight = last.weight.detach()
    return {
        f'mask.linear.{number}.weight': weight - weight.mean(1, keepdim=True) + 1 / last.in_channels,
        f'mask.linear.{number - 1}.0.weight': torch.zeros_like(norm.weight),
        f'mask.linear.{number - 1}.0.bias': torch.ones_like(norm.bias),
    }


def problems(source: Source, backbone: ResidualAttentionNet) -> list[str]:
    """Why a backbone cannot hold a source; nothing if it can. The backbone may be on the meta device."""
    arch, layout = backbone.arch, LAYOUTS[source.layout]
    found = []
    if source.unit != arch.unit:
        return [f'its units are {source.unit}, those of this architecture {arch.unit}']
    modules = [module for module in backbone.modules() if isinstance(module, AttentionModule)]
    if any(not m.attention_residual_learning and m.activation is channel_attention for m in modules):
        found.append(
            'without attention residual learning, channel masks would divide the features by the root of the number of '
            "channels, again and again; take attention='mixed' or 'spatial', or attention_residual_learning=True"
        )
    if arch.stem not in layout.stems:
        found.append(f'its stem is {" or ".join(layout.stems)}, that of this architecture {arch.stem}')
    else:
        found += _differences('stem', source.stem, backbone.stem)
    if not _holds_units(arch, source):
        found.append(
            f'its stages have {", ".join(map(str, source.units))} units, of which this architecture holds at most '
            f'{", ".join(map(str, arch.units()))}'
        )
    for steps, units in zip(walk(backbone), source.stages):
        modules = {step.name: step.module for step in steps}
        for name, weights in match(steps, units).items():
            found += _differences(name, weights, modules[name])
    last = f'norm{len(arch.channels)}'
    if hasattr(backbone, last) and not found:
        found += _differences(last, source.closing, getattr(backbone, last)[0])
    return found


def _differences(where: str, weights: Weights, module: nn.Module) -> list[str]:
    """Names and shapes in which the weights of a source differ from those of a module."""
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    names = [name for name in {**own, **given} if not name.endswith('num_batches_tracked')]
    return [
        f'{where}.{name} is {given.get(name, "missing")} in it and {own.get(name, "missing")} here'
        for name in names
        if given.get(name) != own.get(name)
    ]


def holders(source: Source) -> list[str]:
    """The named architectures that can hold a source, the smallest first."""
    found = []
    for name, arch in ARCHITECTURES.items():
        alike = (arch.unit, tuple(arch.channels)) == (source.unit, source.channels) and '0.weight' in source.stem
        if alike and any(arch.modules) and _holds_units(arch, source):
            with torch.device('meta'):
                backbone = ResidualAttentionNet(arch, in_channels=source.stem['0.weight'].shape[1])
            if not problems(source, backbone):
                found.append((sum(parameter.numel() for parameter in backbone.parameters()), name))
    return [name for _, name in sorted(found)]


def _holds_units(arch: Architecture, source: Source) -> bool:
    return len(arch.channels) == len(source.units) and all(a >= b for a, b in zip(arch.units(), source.units))


def plain_network(source: Source) -> ResidualAttentionNet:
    """The source itself, as a network of our units without masks. Raises a ValueError if it is made of others."""
    arch = Architecture(
        unit=source.unit,
        stem=next(stem for stem in LAYOUTS[source.layout].stems if STEMS[stem].norm == ('1.0.weight' in source.stem)),
        stem_channels=source.stem['0.weight'].shape[0],
        channels=source.channels,
        strides=[1, *[2] * (len(source.stages) - 1)],
        modules=[0] * len(source.stages),
        poolings=[0] * len(source.stages),
        units_after=[units - 1 for units in source.units],
    )
    backbone = ResidualAttentionNet(arch, in_channels=source.stem['0.weight'].shape[1])
    start(backbone, source)
    return backbone.eval()


def start(backbone: ResidualAttentionNet, source: Source) -> float:
    """Let a backbone, whose weights are initialised, begin as a source that it can hold: see :func:`problems`.

    Returns:
        float: How many times as large as in the source the features of its last stage are.
    """
    state, s = {f'stem.{name}': value for name, value in source.stem.items()}, 1.0
    for steps, units in zip(walk(backbone), source.stages):
        counterparts = match(steps, units)
        for name, module, _ in steps:
            if isinstance(module, AttentionModule):
                weights, s = started_mask(module), s * merge_factor(module)
            else:
                weights, s = started_unit(module, counterparts.get(name), s)
            state.update({f'{name}.{key}': value for key, value in weights.items()})
    last = f'norm{len(backbone.arch.channels)}'
    if hasattr(backbone, last):
        closing = for_larger_input(source.closing, s, getattr(backbone, last)[0].eps)
        state.update({f'{last}.0.{name}': value for name, value in closing.items()})
        s = 1.0
    backbone.load_state_dict(state, strict=False)
    return s


@WEIGHT_INITIALIZERS.register_module()
class PretrainedTrunk:
    """Lets a Residual Attention Network begin as a published residual network, with equal outputs.

    The module is a :class:`ResidualAttentionNet`, or a classifier with one as its backbone; the classifier then starts
    with that of the source too, if it has as many classes. The trunk computes what the source does: its last features,
    and the scores, are equal; features of earlier stages are larger by the factors of :func:`stage_factors`. Masks and
    what else is new are initialised as usual. See :mod:`mmresattn.weights.pretrained_trunk` for the algebra.

    Args:
        checkpoint (str): A path or address, ``torchvision://resnet50``, ``mmpretrain::resnet50_8xb32_in1k`` with a name
            of MMPretrain's model zoo, or ``timm::resnetv2_50.a1h_in1k``.
        prefix (str, optional): What the names of the network begin with in the checkpoint. Needed only where it has
            several.

    Example:
        >>> backbone = dict(
        ...     type='ResidualAttentionNet',
        ...     arch='attention-resnet50',
        ...     new_masks=True,
        ...     init_cfg=dict(type='PretrainedTrunk', checkpoint='torchvision://resnet50'),
        ... )
    """

    def __init__(self, checkpoint: str, prefix: str | None = None) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix

    def check(self, module: nn.Module) -> Source:
        """Read the source and check that the module can hold it.

        Args:
            module (nn.Module): The backbone or classifier; may be on the meta device.

        Returns:
            Source: What it will start from.

        Raises:
            ValueError: If it cannot. The message says why, and which architecture can. Nothing has changed then.
        """
        backbone = _backbone(module)
        source = read_source(self.checkpoint, self.prefix)
        if found := problems(source, backbone):
            names = ', '.join(holders(source))
            advice = f'Named architectures that hold it: {names}.' if names else 'No named architecture holds it.'
            more = f'; and {len(found) - 3} more' if len(found) > 3 else ''
            raise ValueError(f'{source} cannot start this ResidualAttentionNet: {"; ".join(found[:3])}{more}. {advice}')
        return source

    def __call__(self, module: nn.Module) -> None:
        """Initialise the module. Its parts will not initialise themselves afterwards."""
        source = self.check(module)
        backbone = _backbone(module)
        initialize(backbone, list(INIT_CFG))
        s = start(backbone, source)
        if hasattr(module, '_params_init_info'):
            update_init_info(backbone, init_info=f'PretrainedTrunk: {self.checkpoint}')
        fc = getattr(getattr(module, 'head', None), 'fc', None)
        complete = len(backbone.stages) == len(backbone.arch.channels)
        taken = bool(complete and fc and source.classifier) and fc.weight.shape == source.classifier['weight'].shape
        if taken:
            with torch.no_grad():
                fc.weight.copy_(source.classifier['weight'].double() / s)
                fc.bias.copy_(source.classifier.get('bias', torch.zeros_like(fc.bias)))
        for part in [*backbone.modules(), *(module.head.modules() if taken else [])]:
            if isinstance(part, BaseModule):
                part.is_init = True
        self._log(source, backbone, fc, taken)

    def _log(self, source: Source, backbone: ResidualAttentionNet, fc: nn.Module | None, taken: bool) -> None:
        steps = [step for stage in walk(backbone) for step in stage]
        known = [name for stage, units in zip(walk(backbone), source.stages) for name in match(stage, units)]
        masks = [step.name for step in steps if isinstance(step.module, AttentionModule)]
        identity = [step.name for step in steps if step.name not in known and step.name not in masks]
        norms = [name for name, _ in backbone.named_children() if name.startswith('norm')]
        new = [*(f'{name}.mask' for name in masks), *norms[: -1 if source.closing else None]]
        if fc is not None and not taken:
            new.append(f'classifier ({fc.out_features} classes)')
        left = f'; not used: {listed(source.left)}' if source.left else ''
        factors = ', '.join(f'{factor:.4g}' for factor in stage_factors(backbone))
        for line in (
            f'PretrainedTrunk: took stem, {len(known)} units{" and classifier" * bool(taken)} of {source}{left}.',
            f'PretrainedTrunk: units that start as the identity: {", ".join(identity) or "none"}.',
            f'PretrainedTrunk: new: {", ".join(new)}. Features of the stages are {factors} times those of the source.',
        ):
            print_log(line, logger='current')


def _backbone(module: nn.Module) -> ResidualAttentionNet:
    backbone = getattr(module, 'backbone', module)
    if not isinstance(backbone, ResidualAttentionNet):
        raise ValueError(
            f'PretrainedTrunk starts a ResidualAttentionNet, or a classifier on one, not {type(module).__name__}. '
            "Other networks take weights of their own: init_cfg=dict(type='Pretrained', ...)."
        )
    return backbone
