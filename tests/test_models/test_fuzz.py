"""Networks drawn at random: each works and agrees with float64, or says what is wrong with what it was given.

A hundred cases by default; ``MMRESATTN_FUZZ=3000 pytest -n 0 -s tests/test_models/test_fuzz.py`` draws that many and
prints how many worked, and how many were refused with which message. The same number draws the same cases.
"""

import copy
import os
import random
import re
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmresattn
from mmresattn.models.backbones import (
    AttentionResNet,
    CIFARDenseNet,
    CIFARResNet,
    CIFARResNeXt,
    CIFARWideResNet,
    PayAttentionNet,
    ResidualAttentionNet,
    SEBNInception,
)
from mmresattn.models.backbones.residual_attention_net import ARCHITECTURES, STEMS
from mmresattn.models.backbones.se_bn_inception import MIN_SIZE
from mmresattn.models.heads import PayAttentionHead
from mmresattn.models.layers import NonLocalAttention, attention_maps, edit_attention
from mmresattn.models.necks import PayAttention
from tests.conftest import record_if_any

PACKAGE = Path(mmresattn.__file__).parent
EXAMPLES = int(os.environ.get('MMRESATTN_FUZZ', 100))
# Largest difference from float64, as a share of the largest output.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
TALLY = Counter()
SINGLE_VALUE = 'Expected more than 1 value per channel'


@pytest.fixture(scope='module', autouse=True)
def tally():
    yield
    print(f'\n{sum(TALLY.values())} cases')
    for (family, outcome), number in sorted(TALLY.items(), key=lambda item: (item[0][0], -item[1])):
        print(f'{number:5} {family:22} {outcome}')


def fuzz(share: float, strategy: st.SearchStrategy):
    """A test of that share of all cases."""
    cases = settings(
        max_examples=max(1, round(share * EXAMPLES)),
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.generate,),  # a failure is shown as it was drawn: to make it simpler would take minutes
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: cases(given(strategy)(test))


@dataclass
class Images:
    batch: int
    height: int
    width: int
    channels: int
    dtype: torch.dtype
    channels_last: bool
    train: bool

    def draw(self) -> torch.Tensor:
        x = torch.randn(self.batch, self.channels, self.height, self.width, dtype=torch.float64).to(self.dtype)
        return x.to(memory_format=torch.channels_last) if self.channels_last else x


def images(draw, largest: int, area: int, least: int = 1) -> Images:
    """Images of sides up to ``largest``, most of them near the ``least``, and of no more than ``area`` positions."""
    side = st.one_of(
        st.integers(least, least + 40), st.integers(max(1, least - 1), least + 1), st.integers(1, max(least, largest))
    )
    height = min(draw(side), largest)
    return Images(
        batch=draw(st.integers(1, 3)),
        height=height,
        width=min(draw(side), max(1, area // height)),
        channels=draw(st.integers(1, 4)),
        dtype=draw(st.sampled_from(list(TOLERANCE))),
        channels_last=draw(st.booleans()),
        train=draw(st.booleans()),
    )


def prepare(model: nn.Module, images: Images) -> nn.Module:
    """Take numbers of which none is a special one."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # draws depend on the type
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or not parameter.any():
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.train(images.train).to(images.dtype)
    return model.to(memory_format=torch.channels_last) if images.channels_last else model


def message_of(call):
    """What a call gives and None, or None and the message of an error that this package words itself."""
    try:
        return call(), None
    except (ValueError, TypeError) as error:
        if SINGLE_VALUE in str(error):  # PyTorch's
            return None, str(error)
        link = error
        while link is not None:  # MMEngine raises errors once more with the name of the class
            inside = PACKAGE in Path(traceback.extract_tb(link.__traceback__)[-1].filename).parents
            if inside and str(link) in str(error):
                return None, str(error)
            link = link.__context__
        raise


def single_values(model: nn.Module, forward, x: torch.Tensor) -> bool:
    """Whether some normalisation takes its statistics of one value a channel of an image."""
    found = []
    hooks = [
        module.register_forward_pre_hook(lambda m, args: found.append(args[0][0, 0].numel() == 1))
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training or isinstance(module, nn.GroupNorm)
    ]
    message_of(lambda: forward(model, x.repeat(2, 1, 1, 1)))  # may go on to another error
    for hook in hooks:
        hook.remove()
    return any(found)


def disturbed(model: nn.Module, forward, x: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    """Outputs when every layer rounds as if it had that type: how much of a difference rounding may make."""
    eps = torch.finfo(dtype).eps
    hooks = [
        module.register_forward_hook(lambda m, args, out: out * (1 + eps * torch.randn_like(out)))
        for module in model.modules()
        if not any(module.children())
    ]
    outs = forward(model, x)
    for hook in hooks:
        hook.remove()
    return outs


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-30)).item()


def check_map(owner: nn.Module, attention: torch.Tensor, eps: float) -> None:
    """Attention is in its documented range; of numbers that are rounded, sums are what they should be."""
    slack = eps * (10 + attention[0].numel() ** 0.5)
    name, attention = type(owner).__name__, attention.double()
    if name == 'NonLocalAttention' and owner.mode == 'dot_product':
        return
    if name == 'AttentionModule' and owner.activation.__name__ == 'channel_attention':
        assert attention.norm(dim=1).max() <= 1 + slack
        return
    assert attention.min() >= 0
    if name == 'AttentionLevel':
        assert (attention.sum((2, 3)) - 1).abs().max() <= slack
    elif name == 'AttentionAugmentedConv' or name == 'NonLocalAttention' and 'gaussian' in owner.mode:
        assert (attention.sum(3) - 1).abs().max() <= slack
    elif name != 'NonLocalAttention':
        assert attention.max() <= 1


def smallest_side(model: nn.Module) -> int:
    """The least height and width of the images that a backbone, or a model around one, says that it takes."""
    return next((module.min_size for module in model.modules() if hasattr(module, 'min_size')), 1)


def examine(family, build, forward, images, *, fault=None, too_small=None) -> None:
    """Hold a network to what is documented.

    Args:
        family (str): Under which the case is counted.
        build (Callable): Gives the network.
        forward (Callable): Of a network and images: list of outputs.
        images (Images): What to draw.
        fault (str, optional): What the error names, if an argument does not fit.
        too_small (bool, optional): Whether the images are too small. Defaults to what the backbone says.
    """
    torch.manual_seed(0)

    def tell(outcome):
        outcome = re.sub(r'[\[(].*|-?\d+(\.\d+)?|\'.*?\'', '*', outcome)
        TALLY[family, outcome[:70]] += 1

    model, message = message_of(build)
    if fault or message:
        assert message and fault and re.search(fault, message), (fault, message)
        return tell(f'refused: {message}')
    prepare(model, images)
    x = images.draw()
    outs, message = message_of(lambda: forward(model, x))
    if message and SINGLE_VALUE in message:
        assert images.batch == 1 and single_values(model, forward, x)
        return tell(f'refused: {message}')
    if too_small is None:
        too_small = min(images.height, images.width) < smallest_side(model)
    if message or too_small:
        assert message and 'too small' in message and (too_small or 'with sub_sample' in message), message
        return tell(f'refused: {message}')

    assert all(out.dtype == images.dtype and len(out) == images.batch for out in outs)
    reference = copy.deepcopy(model).double()
    with torch.no_grad():
        exact = forward(reference, x.double())
        note = compare(reference, forward, x, outs, exact, images.dtype)
        if not images.train:  # an image does not depend on the others of its batch
            alone, message = message_of(lambda: [forward(reference, image[None].double()) for image in x])
            assert not message or single_values(reference, forward, x.double()), message  # GN, of one channel and pixel
            assert all(difference(torch.cat(parts), out) < 1e-9 for parts, out in zip(zip(*alone or ()), exact))
        with record_if_any(model) as maps:
            recorded = forward(model, x)
        with edit_attention(model, dict(maps)):  # an edit that changes nothing
            assert all(map(torch.equal, forward(model, x), recorded))
    assert set(maps) == set(attention_maps(model))
    if not any(isinstance(module, NonLocalAttention) for module in model.modules()):  # fused unless it is watched
        assert all(map(torch.equal, outs, recorded))
    for name, attention in maps.items():
        check_map(model.get_submodule(name.rpartition('.')[0]), attention, torch.finfo(images.dtype).eps)
    if images.train:
        loss = sum((out * torch.randn_like(out)).mean() for out in outs)
        if loss.requires_grad:  # not if all is frozen
            # In bfloat16, oneDNN gives the weights of a 1x1 convolution of stride 3 and 3 channels, on a single pixel,
            # now and then a gradient of NaN: whatever lay in memory. So does a bare nn.Conv2d (PyTorch 2.14).
            with torch.backends.mkldnn.flags(enabled=False):
                loss.backward()
        assert all(p.grad is None or p.requires_grad and p.grad.isfinite().all() for p in model.parameters())
    tell('worked' + note)


def compare(reference, forward, x, outs, exact, dtype) -> str:
    """Hold outputs to those of float64; more is forgiven where rounding every layer makes as much of a difference."""
    assert all(out.isfinite().all() for out in exact)
    worst = max(difference(*pair) for pair in zip(outs, exact))
    if worst <= TOLERANCE[dtype]:
        return ''
    draws = [disturbed(reference, forward, x.double(), dtype) for _ in range(20)]
    assert worst <= 10 * max(difference(*pair) for outs in draws for pair in zip(outs, exact)), worst
    return ', ill-conditioned'


def replaced(values, value):
    return (value, *values[1:])


def pick(*drawn, faults):
    """One of some faults, after what has been drawn: Hypothesis by itself would take the same ones again and again."""
    return random.Random(repr(drawn)).choice(faults)


@st.composite
def residual_attention(draw):
    if draw(st.integers(0, 3)) == 0:
        base = draw(st.sampled_from(['attention56', 'attention92', 'attentionnext56', 'attentioninception56',
                                     'attention-resnet50', 'attention-resnet18', 'attention56-cifar',
                                     'resnet164-cifar']))  # fmt: skip
        n = 3 if base.endswith('cifar') else 4
        arch = dict(base=base, stem_channels=4, channels=(64 if 'next' in base else 16,) * n)
        if base == 'resnet164-cifar':
            arch['units_after'] = (1, 2, 1)
        full = {**asdict(ARCHITECTURES[base]), **arch}
    else:
        n = draw(st.integers(1, 4))
        unit = draw(st.sampled_from(['preact', 'preact', 'bottleneck', 'basic', 'inception', 'resnext']))
        step, narrow = {'inception': (16, 4), 'resnext': (64, 32)}.get(unit, (4, 1))

        def each(low, high, factor=1):
            return tuple(factor * draw(st.integers(low, high)) for _ in range(n))

        full = arch = dict(
            unit=unit,
            stem=draw(st.sampled_from(list(STEMS))),
            stem_channels=draw(st.integers(1, 8)),
            channels=each(1, {'inception': 2, 'resnext': 1}.get(unit, 6), step),
            strides=tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in range(n)),
            modules=each(0, 2),
            poolings=each(0, 3),
            units_after=each(0, 2),
            p=draw(st.integers(0, 2)),
            t=draw(st.integers(0, 2)),
            r=draw(st.integers(0, 2)),
            bottom_units=draw(st.sampled_from([None, 0, 1, 2])),
            mask_widths=draw(st.sampled_from([None, (None,) * n, (narrow,) * n])),
        )
    options = dict(
        arch=arch,
        attention=draw(st.sampled_from(['mixed', 'channel', 'spatial'])),
        attention_residual_learning=draw(st.booleans()),
        mask=draw(st.sampled_from(['encoder_decoder', 'encoder_decoder', 'local_conv'])),
        strides=draw(st.one_of(st.none(), st.tuples(*n * [st.integers(1, 2)]))),
        dilations=draw(st.one_of(st.none(), st.tuples(*n * [st.integers(1, 3)]))),
        out_indices=draw(st.one_of(st.integers(-n, n - 1), st.sets(st.integers(0, n - 1), min_size=1))),
        norm_outputs=draw(st.booleans()),
        frozen_stages=draw(st.sampled_from([-1, -1, *range(n + 1)])),
        norm_eval=draw(st.booleans()),
        with_cp=draw(st.booleans()),
        norm_cfg=draw(st.sampled_from([dict(type='BN')] * 3 + [dict(type='GN', num_groups=1)])),
    )
    with torch.device('meta'):
        least = ResidualAttentionNet(**options).min_size
    images_ = images(draw, 600, 24_000 if 'net' in full['stem'] else 3_000, least)
    options['in_channels'] = images_.channels
    fault = None
    if draw(st.integers(0, 3)) == 0:
        field, value = pick(images_, options, faults=[
            *[(field, bad) for field in ('channels', 'strides') for bad in (-1, 0, 1.5, '2', None)],
            *[(field, bad) for field in ('modules', 'poolings', 'units_after') for bad in (-1, 1.5, '2', None)],
            *[(field, bad) for field in ('p', 't', 'r', 'bottom_units') for bad in (-1, 1.5, '2')],
            *[('stem_channels', bad) for bad in (0, -1, 1.5, None)],
            *[('mask_widths', bad) for bad in (0, -1, 1.5)],
            *[(field, bad) for field in ('unit', 'stem', 'base', 'colour') for bad in ('x', None, [])],
            *[('options.' + field, bad) for field in ('attention', 'mask') for bad in ('x', None)],
            *[('options.' + field, bad) for field in ('strides', 'dilations')
              for bad in ((), 2, (0,) * n, (1.5,) * n, (1,) * (n + 1))],
            *[('options.out_indices', bad) for bad in ((), n, (-n - 1,), (0, 0), 0.5, ('a',), None)],
            *[('options.frozen_stages', bad) for bad in (-2, n + 1, 0.5, None)],
            *[('options.in_channels', bad) for bad in (0, -1, 1.5, None)],
            *[('options.arch', bad) for bad in ('attention57', None, 3, ())],
        ])  # fmt: skip
        if field.startswith('options.'):
            field = field.removeprefix('options.')
            options[field], fault = value, 'rchitecture' if field == 'arch' else field
        elif (field, value) != ('base', None):
            options['arch'] = dict(arch)
            listed = field in ('channels', 'strides', 'modules', 'poolings', 'units_after', 'mask_widths')
            bad = replaced(full[field] or (None,) * n, value) if listed else value
            options['arch'][field] = bad
            fault = 'rchitecture' if field == 'base' else field
    return images_, options, fault


@fuzz(0.53, residual_attention())
def test_residual_attention_net(case):
    images, options, fault = case
    examine(
        'ResidualAttentionNet',
        lambda: ResidualAttentionNet(**options),
        lambda model, x: list(model(x)),
        images,
        fault=fault,
    )


def attention_layers(draw, images_: Images, fault: bool):
    """Layers for the blocks of a residual network, and what does not fit."""
    layers, errors = [], []
    for name in draw(st.sets(st.sampled_from(['SqueezeExcitation', 'NonLocalAttention', 'AttentionAugmentedConv']))):
        layer = dict(type=name)
        if name == 'SqueezeExcitation':
            layer.update(ratio=draw(st.integers(1, 4)), divisor=draw(st.sampled_from([1, 8])))
            wrong = dict(ratio=(0, -1, 1.5, None, 1000), divisor=(0, -1, 1.5), squeeze_channels=(0, -2, 1.5))
            layer['divisor'] = 1 if fault else layer['divisor']
        elif name == 'NonLocalAttention':
            layer.update(
                mode=draw(st.sampled_from(['gaussian', 'embedded_gaussian', 'dot_product', 'concatenation'])),
                sub_sample=draw(st.booleans()),
                pool_first=draw(st.booleans()),
                out_bias=draw(st.booleans()),
                reduction=draw(st.integers(1, 3)),
                stages=([-1],) * 4,  # one behind the other, some kinds would take the cube of a cube
            )
            wrong = dict(mode=('x',), reduction=(0, -1, 1.5, None))
        else:
            layer.update(
                heads=draw(st.integers(1, 2)),
                kappa=draw(st.sampled_from([0, 0.2, 1.5])),
                upsilon=draw(st.sampled_from([0, 0.5, 1.0])),
                min_head_keys=draw(st.integers(1, 5)),
                size=draw(st.integers(1, 9)),
                pool=draw(st.booleans()),
            )
            wrong = dict(heads=(0, -1, 1.5, None, 1000), kappa=(-0.1,), upsilon=(-0.1, 1.5, 1e-9), size=(0, 1.5),
                         min_head_keys=(0, 1.5))  # fmt: skip
        layers.append(layer)
        errors += [(layer, key, value) for key, values in wrong.items() for value in values]
    if fault and errors:
        layer, key, value = pick(images_, layers, faults=errors)
        layer[key] = value
        if (key, value) == ('heads', 1000):
            layer['upsilon'] = 0.5
        return layers, 'upsilon' if value == 1e-9 else key
    return layers, None


@st.composite
def attention_resnet(draw):
    images_ = images(draw, 600, 10_000)
    n = draw(st.integers(1, 4))
    depth = draw(st.sampled_from([18, 18, 50]))
    stem = draw(st.sampled_from(['resnet', 'resnet', 'imagenet']))
    wrong = draw(st.sampled_from([None] * 6 + ['layer'] * 2 + ['option'] * 2))
    attention, fault = attention_layers(draw, images_, wrong == 'layer')
    options = dict(
        depth=depth,
        attention=attention,
        num_stages=n,
        in_channels=images_.channels,
        stem_channels=draw(st.integers(2, 8)),
        base_channels=4 * draw(st.integers(1, 2)),
        strides=draw(st.tuples(*n * [st.integers(1, 3)])),
        dilations=draw(st.tuples(*n * [st.integers(1, 2)])),
        out_indices=draw(st.one_of(st.integers(-n, n - 1), st.sets(st.integers(0, n - 1), min_size=1))),
        frozen_stages=draw(st.sampled_from([-1, -1, *range(n + 1)])),
        caffe_pool=stem == 'imagenet',
        style=draw(st.sampled_from(['pytorch', 'caffe'])),
        deep_stem=draw(st.booleans()),
        avg_down=draw(st.booleans()),
        norm_eval=draw(st.booleans()),
        with_cp=draw(st.booleans()),
    )
    if depth == 50 and draw(st.booleans()):
        options.update(groups=2, width_per_group=2)
    if wrong == 'option':
        fault, value = pick(images_, options, faults=[
            *[('strides', bad) for bad in ((), 2, (0,) * n, (1.5,) * n, None)],
            *[('dilations', bad) for bad in ((), 1, (-1,) * n)],
            *[('out_indices', bad) for bad in ((), n, (-n - 1,), (0, 0), 0.5, None)],
            *[('frozen_stages', bad) for bad in (-2, n + 1, 0.5, None)],
            *[(name, bad) for name in ('in_channels', 'stem_channels', 'base_channels', 'groups')
              for bad in (0, -1, 1.5, None)],
            ('depth', 20), ('depth', None), ('style', 'x'), ('style', None),
        ])  # fmt: skip
        options[fault] = value
    return images_, options, fault


@fuzz(0.18, attention_resnet())
def test_attention_resnet(case):
    images, options, fault = case
    examine('AttentionResNet', lambda: AttentionResNet(**options), lambda model, x: list(model(x)), images, fault=fault)


@st.composite
def cifar_body(draw):
    images_ = images(draw, 600, 2_000)
    body = draw(st.sampled_from([CIFARResNet, CIFARResNeXt, CIFARWideResNet, CIFARDenseNet]))
    options = dict(
        in_channels=images_.channels,
        out_indices=draw(st.one_of(st.integers(-3, 2), st.sets(st.integers(0, 2), min_size=1))),
    )
    wrong = dict(in_channels=(0, -1, 1.5, None), out_indices=((), 3, -4, (0, 0), 0.5, None), depth=(2, 9, 10.0, None))
    fault = draw(st.sampled_from([None] * 8 + ['layer', 'option', 'option']))
    if body is not CIFARDenseNet:
        options['strides'] = draw(st.tuples(*3 * [st.integers(1, 3)]))
        wrong['strides'] = ((1, 2), 2, (0, 1, 1), (1, 1, 1.5), None)
    if body in (CIFARResNet, CIFARResNeXt):
        options['frozen_stages'] = draw(st.sampled_from([-1, -1, 0, 1, 2, 3]))
        options['dilations'] = draw(st.tuples(*3 * [st.integers(1, 2)]))
        options['norm_eval'] = draw(st.booleans())
        wrong.update(frozen_stages=(-2, 4, 0.5, None), dilations=((1,), 1, (0, 1, 1)))
    if body is CIFARResNet:
        options.update(depth=draw(st.sampled_from([8, 14, 44])), base_channels=4, stem_channels=draw(st.integers(1, 5)))
        wrong.update(base_channels=(0, -1, 1.5), stem_channels=(0, -1, 1.5))
    elif body is CIFARResNeXt:
        options.update(depth=11, groups=draw(st.integers(1, 3)), width_per_group=draw(st.integers(1, 3)))
        wrong.update(groups=(0, -1, 1.5), width_per_group=(0, -1, 1.5))
    elif body is CIFARWideResNet:
        attention, layer_fault = attention_layers(draw, images_, fault == 'layer')
        if max(images_.height, images_.width) > 20 and not layer_fault:  # there, pairs of all positions are too many
            attention = [layer for layer in attention if layer['type'] == 'SqueezeExcitation']
        if layer_fault:
            options.update(attention=attention, depth=10, widen_factor=1, out_indices=-1)
            return images_, body, options, layer_fault
        options.update(attention=attention, depth=draw(st.sampled_from([10, 16])), widen_factor=1)
        wrong.update(widen_factor=(0, -1, 1.5))
    else:
        options.update(depth=draw(st.sampled_from([10, 16])), growth_rate=draw(st.integers(1, 4)))
        wrong.update(growth_rate=(0, -1, 1.5))
    if fault == 'option':
        faults = [(key, value) for key, values in wrong.items() for value in values]
        fault, value = pick(images_, options, faults=faults)
        return images_, body, {**options, fault: value}, fault
    return images_, body, options, None


@fuzz(0.1, cifar_body())
def test_cifar_bodies(case):
    images, body, options, fault = case
    examine(body.__name__, lambda: body(**options), lambda model, x: list(model(x)), images, fault=fault)


@st.composite
def se_bn_inception(draw):
    images_ = images(draw, 300, 3_000)
    options = dict(
        ratio=draw(st.sampled_from([None, 1, 7, 16, 256])),
        in_channels=images_.channels,
        out_indices=draw(st.one_of(st.integers(-3, 2), st.sets(st.integers(0, 2), min_size=1))),
        frozen_stages=draw(st.integers(-1, 3)),
        norm_eval=draw(st.booleans()),
        with_cp=draw(st.booleans()),
    )
    fault = pick(images_, options, faults=[None] * 9 + [
        ('ratio', 0), ('ratio', 257), ('ratio', 1.5), ('out_indices', 3), ('out_indices', ()), ('frozen_stages', 4),
        ('in_channels', 0),
    ])  # fmt: skip
    if fault:
        options[fault[0]] = fault[1]
    return images_, options, fault and fault[0]


@fuzz(0.02, se_bn_inception())
def test_se_bn_inception(case):
    images, options, fault = case
    examine(
        'SEBNInception',
        lambda: SEBNInception(**options),
        lambda model, x: list(model(x)),
        images,
        fault=fault,
        too_small=min(images.height, images.width) < MIN_SIZE,
    )


PLAN = st.lists(
    st.sampled_from(
        [3, 5, 0.4, ('max', 2), ('max', 3), ('to', 3), ('stem', 4), ('unit', 4), ('unit', 8, 2), ('norm',)]
    ),
    min_size=1,
    max_size=4,
)


def width_of(layers, channels: int) -> int:
    for layer in layers:
        if isinstance(layer, int):
            channels = layer
        elif isinstance(layer, tuple) and layer[0] in ('stem', 'unit'):
            channels = layer[1]
    return channels


@st.composite
def pay_attention(draw):
    images_ = images(draw, 300, 2_000)
    g = draw(st.one_of(st.none(), st.integers(1, 6)))
    n = draw(st.integers(2 if g is None else 1, 3))
    stages = [draw(PLAN) for _ in range(n)]
    tail = draw(st.one_of(st.just([]), PLAN))
    gates = draw(st.one_of(st.none(), st.tuples(*n * [st.one_of(st.none(), PLAN)])))
    widths, channels = [], images_.channels
    for stage in stages:
        channels = width_of(stage, channels)
        widths.append(channels)
    arch = dict(
        stages=stages,
        tail=tail,
        global_channels=g,
        gates=gates,
    )
    out_indices = sorted(draw(st.sets(st.integers(0, n - 1), min_size=2 if g is None else 1)))
    in_channels = [widths[i] for i in out_indices] + ([] if g is None else [g])
    average = draw(st.booleans())
    parts = dict(
        backbone=dict(arch=arch, in_channels=images_.channels, out_indices=out_indices, average_gradients=average),
        neck=dict(
            in_channels=in_channels,
            score=draw(st.sampled_from(['pc', 'dp'])),
            project=draw(st.sampled_from(['global', 'local'])),
            global_channels=draw(st.one_of(st.none(), st.integers(1, 5))),
            average_gradients=average,
        ),
        head=dict(num_classes=draw(st.integers(1, 4)), combine=draw(st.sampled_from(['concat', 'indep', 'sum']))),
    )
    fault = None
    if draw(st.integers(0, 3)) == 0:
        part, fault, value = pick(images_, parts, faults=[
            *[('stages', None, [layer]) for layer in (0, ('stem', 1.5), ('unit', 6), ('x', 3), 'conv3')],
            ('arch', 'gates', (None,) * (n + 1)),
            *[('arch', 'global_channels', bad) for bad in (0, -1, 1.5)],
            *[('backbone', 'out_indices', bad) for bad in ((n,), (-n - 1,), (0, 0))],
            *[('backbone', 'in_channels', bad) for bad in (0, -1, 1.5)],
            *[('neck', 'score', bad) for bad in ('x', None)],
            *[('neck', 'project', bad) for bad in ('x', None)],
            *[('neck', 'global_channels', bad) for bad in (0, -1, 1.5)],
            *[('neck', 'levels', bad) for bad in ((), (9,), (0, 0))],
            *[('head', 'num_classes', bad) for bad in (0, -1)],
            *[('head', 'combine', bad) for bad in ('x', None)],
        ])  # fmt: skip
        if part == 'stages':
            arch['stages'] = replaced(arch['stages'], value)
            fault = 'no layer|channels'
        elif part == 'arch':
            arch[fault] = value
        else:
            parts[part][fault] = value
    return images_, parts, fault


@fuzz(0.12, pay_attention())
def test_pay_attention(case):
    images, parts, fault = case

    def build():
        neck = PayAttention(**parts['neck'])
        head = PayAttentionHead(in_channels=neck.out_channels, **parts['head'])
        return nn.Sequential(PayAttentionNet(**parts['backbone']), neck, head)

    examine('PayAttentionNet', build, lambda model, x: [model(x)], images, fault=fault)


@st.composite
def attention_branch(draw):
    images_ = images(draw, 300, 2_000)
    backbone = draw(st.sampled_from([
        dict(type='CIFARResNet', depth=8, base_channels=4),
        dict(type='CIFARResNet', depth=44, base_channels=4),
        dict(type='CIFARResNeXt', depth=11, groups=2, width_per_group=2),
        dict(type='CIFARWideResNet', depth=10, widen_factor=1, drop_rate=0.0),
        dict(type='CIFARDenseNet', depth=10, growth_rate=3),
        dict(type='AttentionResNet', depth=18, base_channels=4, stem_channels=4,
             attention=dict(type='SqueezeExcitation')),
        dict(type='AttentionResNet', depth=50, base_channels=4, stem_channels=4, num_stages=2, strides=(1, 2),
             dilations=(1, 1), attention=dict(type='NonLocalAttention', sub_sample=True)),
        dict(type='ResidualAttentionNet', arch=dict(base='attention56-cifar', channels=(8, 8, 16))),
        dict(type='ResidualAttentionNet', arch=dict(base='attention56-cifar', channels=(8, 8, 16), poolings=(1, 1, 2),
                                                    strides=(2, 1, 2))),
        dict(type='ResidualAttentionNet', arch=dict(base='attention56', channels=(8, 8, 8, 16), stem_channels=4,
                                                    strides=(2, 2, 2, 2))),
        dict(type='ResidualAttentionNet', arch=dict(base='attentionnext56', channels=(64,) * 2, stem_channels=4,
                                                    strides=(1, 2), modules=(1, 1), poolings=(1, 1),
                                                    units_after=(0, 1)), attention='spatial'),
    ]))  # fmt: skip
    options = dict(
        head=dict(type='AttentionBranchHead', num_classes=draw(st.integers(1, 5))),
        neck=dict(map_kernel_size=draw(st.sampled_from([1, 3, 5])), residual=draw(st.booleans())),
    )
    if draw(st.booleans()):
        options['head']['map_loss'] = dict(type='AttentionMapLoss', loss_weight=draw(st.sampled_from([0, 0.1])))
    backbone = dict(backbone, in_channels=images_.channels)
    fault = pick(images_, backbone, options, faults=[None] * 40 + [
        ('map_kernel_size', 2), ('cut', 'nowhere'), ('frozen_stages', 3), ('single stage', 1),
    ])  # fmt: skip
    if fault:
        fault, value = fault
        if fault == 'frozen_stages':
            backbone = dict(type='CIFARResNet', depth=8, frozen_stages=value)
        elif fault == 'single stage':
            backbone = draw(st.sampled_from([
                dict(type='CIFARResNet', depth=8, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,)),
                dict(type='ResidualAttentionNet', arch=dict(base='attention56-cifar', channels=(8,), strides=(1,),
                                                            modules=(1,), poolings=(1,), units_after=(0,))),
            ]))  # fmt: skip
        elif fault == 'map_kernel_size':
            options['neck'][fault] = value
        else:
            options[fault] = value
    return images_, backbone, options, draw(st.sampled_from(['tensor', 'loss', 'predict'])), fault


@fuzz(0.05, attention_branch())
def test_attention_branch_network(case):
    images, backbone, options, mode, fault = case
    too_small = False
    if fault is None:
        whole = MODELS.build(backbone)
        with torch.no_grad():
            try:
                whole.eval()(torch.randn(1, images.channels, images.height, images.width))
            except ValueError as error:
                too_small = 'too small' in str(error)

    def forward(model, x):
        samples = [DataSample().set_gt_label(0) for _ in x]
        out = model(x, None if mode == 'tensor' else samples, mode=mode)
        if mode == 'tensor':
            return [out]
        if mode == 'loss':
            return [value.expand(len(x)) for value in out.values()]
        assert all(0 <= sample.pred_score.min() and sample.pred_score.max() <= 1 for sample in out)
        return [torch.stack([s.pred_score for s in out]), torch.stack([s.attention_branch.pred_score for s in out])]

    if mode == 'loss':  # a mean over the batch
        images.train = True
    build = lambda: MODELS.build(dict(type='AttentionBranchNetwork', backbone=backbone, **options))  # noqa: E731
    examine(f'ABN, {mode}', build, forward, images, fault=fault, too_small=too_small)
