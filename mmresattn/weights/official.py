"""Official trained networks: which of their weights is which of ours.

A family of official networks is a row of ``FAMILIES``: the configs that build the same networks here, and how the names
of their weights become ours. With those weights the outputs are equal, up to rounding.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..utils import listed

Replacement = str | Callable[[re.Match], str]
CAFFE_EPS = 1e-5  # of BatchNorm, in Caffe as in PyTorch


@dataclass(frozen=True)
class Family:
    """Official networks whose weights are named alike.

    Attributes:
        networks (tuple[str, ...]): Configs of the networks, by name.
        renames (tuple): Regular expressions and replacements, which are applied to every name in this order.
        names (Callable, optional): For names that depend on the architecture: given our model, our name of each.
        unused (str, optional): Regular expression of names that do not influence the official network's output.
        constants (Mapping[str, float]): Our weights without an official counterpart, and the value that makes the
            outputs equal.
        prepare (Callable, optional): What is done to the official weights first.
        data_preprocessor (Mapping): Normalisation of pixels, where it is not that of the config.
        classes (str, optional): The data set that names the classes: ``'imagenet'``, ``'cifar100'`` or ``'celeba'``.
    """

    networks: tuple[str, ...]
    renames: tuple[tuple[str, Replacement], ...] = ()
    names: Callable[[nn.Module], Mapping[str, str]] | None = None
    unused: str | None = None
    constants: Mapping[str, float] = field(default_factory=dict)
    prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
    data_preprocessor: Mapping = field(default_factory=dict)
    classes: str | None = 'imagenet'


BACKBONE = (r'^(?!backbone\.|neck\.|head\.)', 'backbone.')  # the rest
ABN_BRANCH = (
    (r'^bn_att\.', 'neck.norm.'),
    (r'^att_conv\.', 'neck.class_maps.0.'),
    (r'^bn_att2\.', 'neck.class_maps.1.0.'),
    (r'^att_conv2\.', 'neck.class_scores.0.'),
    (r'^att_conv3\.', 'neck.attention.0.'),
    (r'^bn_att3\.', 'neck.attention.1.'),
    (r'^(fc|classifier)\.', 'head.fc.'),
)
SE_CAFFE_GRAPH = (
    'se-resnet50-caffe_imagenet',
    'se-resnet101-caffe_imagenet',
    'se-resnet152-caffe_imagenet',
    'se-resnext50_imagenet',
    'se-resnext101_imagenet',
)
CAFFE_PIXELS = dict(mean=[104.0, 117.0, 123.0], std=[1.0, 1.0, 1.0], to_rgb=False)


def _abn_resnet(last: int) -> tuple:
    return (
        *ABN_BRANCH,
        (rf'^att_layer{last}\.', f'neck.stage.layer{last}.'),
        (rf'^layer{last}\.', f'head.stage.layer{last}.'),
        BACKBONE,
    )


def _moved(prefix: str, by: int) -> Callable[[re.Match], str]:
    return lambda match: f'{prefix}.{int(match[1]) + by}.'


def _vgg_attention(before: bool) -> tuple:
    """Of SaoYan's port with attention before or after the poolings. Our layers have other indices in their names."""
    blocks = ('stage1', 0), ('stage1', 6), ('stage1', 12), ('stage2', before), ('stage3', before), ('to_global', before)
    return (
        *((rf'^conv_block{i + 1}\.op\.(\d+)\.', _moved(f'backbone.{name}', by)) for i, (name, by) in enumerate(blocks)),
        (r'^dense\.', f'backbone.to_global.{10 + before}.'),
        (r'^projector\.op\.', 'neck.level1.project_local.'),
        (r'^attn([123])\.op\.', r'neck.level\1.score.'),
        (r'^classify\.', 'head.fc.0.'),
    )


VGG_ATTENTION_CONSTANTS = {
    'neck.level1.project_local.bias': 0,
    **{f'neck.level{k}.score.bias': 0 for k in (1, 2, 3)},
    # In level 1 this changes g, which adds the same number to all scores: the softmax does not depend on it.
    'neck.level1.project_global.0.weight': 1,
    'neck.level1.project_global.0.bias': 0,
    'neck.level1.project_global.0.running_mean': 0,
    'neck.level1.project_global.0.running_var': 1,
}


def _celeba_outputs(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn a task's single output into two, whose difference it is."""
    return {
        name: torch.cat([torch.zeros_like(value), value])
        if name.startswith('output_per.') and len(value) == 1
        else value
        for name, value in weights.items()
    }


def _senet_blobs(blobs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name Caffe's blobs as PyTorch names parameters.

    The statistics of Caffe's BatchNorm are sums, and its third blob is what to divide them by.
    """
    named = {}
    for name, blob in blobs.items():
        layer, _, k = name.rpartition('.')
        parts = {'0': 'weight', '1': 'bias'}
        if layer.endswith('/bn'):
            if k == '2':
                continue
            parts = {'0': 'running_mean', '1': 'running_var'}
            divisor = blobs.get(f'{layer}.2', torch.ones(1)).flatten()[0]
            blob = blob / divisor if divisor else torch.zeros_like(blob)
        named[f'{layer.removesuffix("/scale")}.{parts.get(k, k)}'] = blob
    return named


SENET_UNIT = (
    ('1x1_reduce/bn', 'bn1'),
    ('1x1_reduce', 'conv1'),
    ('3x3/bn', 'bn2'),
    ('3x3', 'conv2'),
    ('1x1_increase/bn', 'bn3'),
    ('1x1_increase', 'conv3'),
    ('1x1_down', 'se_layer.conv1.conv'),
    ('1x1_up', 'se_layer.conv2.conv'),
    ('1x1_proj/bn', 'downsample.1'),
    ('1x1_proj', 'downsample.0'),
)
INCEPTION_BRANCHES = {
    '1x1': 'branch1.0',
    '3x3_reduce': 'branch2.0',
    '3x3': 'branch2.1',
    'double3x3_reduce': 'branch3.0',
    'double3x3a': 'branch3.1',
    'double3x3b': 'branch3.2',
    'pool_proj': 'branch4.0',
}
INCEPTION = (
    (r'^conv1/7x7_s2', 'backbone.stem.0'),
    (r'^conv2/3x3_reduce', 'backbone.stem.2'),
    (r'^conv2/3x3', 'backbone.stem.3'),
    (r'^inception_(3[ab])', r'backbone.stage1.\1'),
    (r'^inception_(3c|4[abcd])', r'backbone.stage2.\1'),
    (r'^inception_(4e|5[ab])', r'backbone.stage3.\1'),
    (r'_1x1_down\.', '.se_layer.conv1.conv.'),
    (r'_1x1_up\.', '.se_layer.conv2.conv.'),
    *((rf'/{theirs}(?=[./])', f'.{ours}') for theirs, ours in INCEPTION_BRANCHES.items()),
    (r'/bn\.', '.1.'),
    (r'(stem\.\d|branch\d\.\d)\.weight$', r'\1.0.weight'),
    (r'^classifier\.', 'head.fc.'),
)
CAFFE2_SUFFIXES = {'w': 'weight', 'b': 'bias', 's': 'weight', 'rm': 'running_mean', 'riv': 'running_var'}
NON_LOCAL_CAFFE2 = (
    (r'^res_conv1_bn_', 'backbone.bn1_'),
    (r'^conv1_', 'backbone.conv1_'),
    (r'^res(\d)_(\d+)_', lambda match: f'backbone.layer{int(match[1]) - 1}.{match[2]}.'),
    (r'^nonlocal_conv(\d)_(\d+)_', lambda match: f'backbone.layer{int(match[1]) - 1}.{match[2]}.nonlocal_block.'),
    *((rf'\.branch2{letter}_bn_', f'.bn{k}_') for k, letter in enumerate('abc', 1)),
    *((rf'\.branch2{letter}_', f'.conv{k}_') for k, letter in enumerate('abc', 1)),
    (r'\.branch1_bn_', '.downsample.1_'),
    (r'\.branch1_', '.downsample.0_'),
    (r'\.theta_', '.theta.conv_'),
    (r'\.(phi|g)_', r'.\1.0.conv_'),  # behind the pooling
    (r'\.out_', '.conv_out.conv_'),
    (r'block\.bn_', 'block.conv_out.bn_'),
    (r'^pred_', 'head.fc_'),
    *((rf'_{theirs}$', f'.{ours}') for theirs, ours in CAFFE2_SUFFIXES.items()),
)


def _residual_attention_names(model: nn.Module) -> dict[str, str]:
    """Our names of the weights of a Residual Attention Network, by layer and blob of the official prototxt."""
    arch = model.backbone.arch
    preact = arch.unit == 'preact'
    down, up = ('down_sample', 'up_sample') if preact else ('down', 'up')
    names = {'classifier.0': 'head.fc.weight', 'classifier.1': 'head.fc.bias'}

    def conv(layer: str, module: str) -> None:
        names[f'{layer}.0'] = f'backbone.{module}.weight'

    def norm(blob: str, module: str) -> None:  # a BN is named after the blob that it normalises
        # The last of its blobs still has to become a variance.
        for k, parameter in enumerate(('weight', 'bias', 'running_mean', 'running_var')):
            names[f'{blob}/bn.{k}'] = f'backbone.{module}.{parameter}'

    # A unit and a module have the name of the blob that they make, and return it.
    def unit(layer: str, module: str, bottom: str, projection: bool = False) -> str:
        if preact:
            norm(bottom, f'{module}.norm1.0')
        for k, name in enumerate(('conv1_1x1', 'conv2_3x3', 'conv3_1x1'), 1):
            conv(f'{layer}/branch1/{name}', f'{module}.conv{k}')
            if not preact:
                norm(f'{layer}/branch1/{name}', f'{module}.bn{k}')
            elif k < 3:
                norm(f'{layer}/branch1/{name}', f'{module}.norm{k + 1}.0')
        if projection:
            conv(f'{layer}/branch2/conv1_1x1', f'{module}.shortcut' if preact else f'{module}.downsample.0')
            if not preact:
                norm(f'{layer}/branch2/conv1_1x1', f'{module}.downsample.1')
        return layer

    def attention(layer: str, module: str, bottom: str, poolings: int) -> str:
        x = unit(f'{layer}/trunk/res1', f'{module}.before.0', bottom)
        for k in range(arch.t):
            x = unit(f'{layer}/trunk/res{k + 2}', f'{module}.trunk.{k}', x)
        mask = f'{layer}/mask'
        for k in range(1, poolings):
            unit(f'{mask}/{down}/res{k}_1', f'{module}.mask.down.{k - 1}.0', f'{mask}/{down}/pool{k}_3x3_s2')
            unit(f'{mask}/skip/res{k}', f'{module}.mask.skip.{k - 1}', f'{mask}/{down}/res{k}_1')
            unit(f'{mask}/{up}/res{k}_1', f'{module}.mask.up.{k - 1}.0', f'{mask}/{up}{k}')
        x = f'{mask}/{down}/pool{poolings}_3x3_s2'
        for k in range(2 * arch.r):
            x = unit(f'{mask}/{down}/res{poolings}_{k + 1}', f'{module}.mask.bottom.{k}', x)
        if preact:
            norm(f'{mask}/{up}/interp_1', f'{module}.mask.linear.0.0')
        k = 1 if preact else 0  # AttentionNeXt has no BN and ReLU there
        conv(f'{mask}/linear_1', f'{module}.mask.linear.{k}')
        norm(f'{mask}/linear_1', f'{module}.mask.linear.{k + 1}.0')
        conv(f'{mask}/linear_2', f'{module}.mask.linear.{k + 2}')
        return unit(layer, f'{module}.after.0', f'{layer}/fusion')

    conv('conv1', 'stem.0')
    norm('conv1', 'stem.1.0')
    x = 'pool1_3x3_s2'
    for i, modules in enumerate(arch.modules):
        x = unit(f'pre_res_{i + 1}' if modules else f'post_res_{i + 1}_1', f'stage{i + 1}.unit1', x, projection=True)
        for k in range(modules):
            x = attention(f'Attention{"ABC"[i]}_{k + 1}', f'stage{i + 1}.attention{k + 1}', x, arch.poolings[i])
        for k in range(arch.units_after[i]):
            x = unit(f'post_res_{i + 1}_{k + 2}', f'stage{i + 1}.unit{k + 2}', x)
    if preact:
        norm(x, f'norm{len(arch.modules)}.0')
    return names


def _inverse_deviations(blobs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The variance from which PyTorch's ``1 / sqrt(var + eps)`` gives the blob again.

    The authors' layer adds eps to the variance of a batch, takes the power -1/2 and averages that; at test time it
    multiplies by the average. So eps is inside of the blob.
    """
    return {
        name: torch.where(blob > 0, (blob.double() ** -2 - CAFFE_EPS).to(blob.dtype), torch.nan)
        if name.endswith('/bn.3')
        else blob
        for name, blob in blobs.items()
    }


FAMILIES = {
    'residual-attention-caffe': Family(
        ('attention56_imagenet', 'attention92_imagenet', 'attentionnext56_imagenet', 'attentionnext92_imagenet'),
        names=_residual_attention_names,
        prepare=_inverse_deviations,
    ),
    'abn-imagenet': Family(
        ('abn-resnet50_imagenet', 'abn-resnet101_imagenet', 'abn-resnet152_imagenet'), _abn_resnet(4)
    ),
    'abn-cifar-resnet': Family(('abn-resnet110_cifar100', 'abn-resnet20_cifar100'), _abn_resnet(3), classes='cifar100'),
    'abn-cifar-wrn': Family(
        ('abn-wrn28-10_cifar100',),
        (
            *ABN_BRANCH,
            (r'^conv1\.', 'backbone.stem.'),
            (r'^bn1\.', 'head.stage.norm.0.'),
            (r'^block([12])\.layer\.', r'backbone.stage\1.'),
            (r'^block3\.layer\.', 'head.stage.stage3.'),
            (r'^att_block3\.layer\.', 'neck.stage.stage3.'),
            (r'\.bn([12])\.', r'.norm\1.0.'),
            (r'\.convShortcut\.', '.shortcut.'),
        ),
        classes='cifar100',
    ),
    'abn-cifar-densenet': Family(
        ('abn-densenet100-12_cifar100',),
        (
            *ABN_BRANCH,
            (r'^conv1\.', 'backbone.stem.'),
            (r'^dense([12])\.', r'backbone.stage\1.0.block.'),
            (r'^dense3\.', 'head.stage.stage3.block.'),
            (r'^att_dense3\.', 'neck.stage.stage3.block.'),
            (r'\.block\.(\d+)\.bn([12])\.', r'.block.\1.norm\2.'),
            (r'^trans([12])\.bn1\.', r'backbone.stage\1.1.norm.'),
            (r'^trans([12])\.conv1\.', r'backbone.stage\1.1.conv.'),
            (r'^bn\.', 'head.stage.norm.0.'),
        ),
        classes='cifar100',
    ),
    'abn-cifar-resnext': Family(
        ('abn-resnext29-8x64d_cifar100',),
        (
            *ABN_BRANCH,
            (r'^conv_1_3x3\.', 'backbone.conv1.'),
            (r'^bn_1\.', 'backbone.bn1.'),
            (r'^stage_([12])\.stage_\d_bottleneck_', r'backbone.layer\1.'),
            (r'^stage_3\.stage_3_bottleneck_', 'head.stage.layer3.'),
            (r'^stage_att\.stage_att_bottleneck_', 'neck.stage.layer3.'),
            (r'\.shortcut\.shortcut_conv\.', '.downsample.0.'),
            (r'\.shortcut\.shortcut_bn\.', '.downsample.1.'),
            (r'\.bn\.', '.bn2.'),
            *(
                (rf'\.{part}_{name}\.', f'.{part}{k}.')
                for part in ('conv', 'bn')
                for k, name in ((1, 'reduce'), (2, 'conv'), (3, 'expand'))
            ),
        ),
        # The authors build this normalisation and do not apply it.
        unused=r'^bn_att\.',
        constants={
            'neck.norm.weight': 1,
            'neck.norm.bias': 0,
            'neck.norm.running_mean': 0,
            'neck.norm.running_var': 1 - 1e-5,
        },
        classes='cifar100',
    ),
    'abn-celeba': Family(
        ('abn-multitask-resnet101-avg_celeba',),
        (
            (r'^layer4_att\.', 'neck.stage.layer4.'),
            (r'^conv_att\.', 'neck.attention.'),
            (r'^layer4\.', 'head.stage.layer4.'),
            (r'^output_per\.', 'head.fc.'),
            BACKBONE,
        ),
        prepare=_celeba_outputs,
        classes='celeba',
    ),
    'senet-caffe': Family(
        SE_CAFFE_GRAPH,
        (
            (r'^conv1/7x7_s2/bn\.', 'backbone.bn1.'),
            (r'^conv1/7x7_s2\.', 'backbone.conv1.'),
            (r'^conv(\d)_(\d+)_', lambda match: f'backbone.layer{int(match[1]) - 1}.{int(match[2]) - 1}.'),
            *((rf'\.{theirs}\.', f'.{ours}.') for theirs, ours in SENET_UNIT),
            (r'^classifier\.', 'head.fc.'),
        ),
        prepare=_senet_blobs,
        data_preprocessor=CAFFE_PIXELS,
    ),
    'se-bn-inception-caffe': Family(
        ('se-bn-inception_imagenet',), INCEPTION, prepare=_senet_blobs, data_preprocessor=CAFFE_PIXELS
    ),
    'se-resnet-legacy': Family(
        SE_CAFFE_GRAPH,
        (
            (r'^backbone\.', 'mmpretrain.'),  # unknown: MMPretrain's SE-ResNets have our names, but other strides
            (r'^layer0\.', ''),
            (r'\.se_module\.fc([12])\.', r'.se_layer.conv\1.conv.'),
            (r'^last_linear\.', 'head.fc.'),
            BACKBONE,
        ),
    ),
    'se-resnet': Family(
        ('se-resnet50_imagenet', 'se-resnet101_imagenet'),
        ((r'\.se\.fc([12])\.', r'.se_layer.conv\1.conv.'), (r'^fc\.', 'head.fc.'), BACKBONE),
    ),
    **{
        f'vgg-attention-{place}': Family(
            (f'vgg-att3-pc-{place}_cifar100',),
            _vgg_attention(before=place == 'before'),
            constants=VGG_ATTENTION_CONSTANTS,
            classes='cifar100',
        )
        for place in ('before', 'after')
    },
    'non-local-caffe2': Family(
        ('nonlocal-resnet50-5block_kinetics400',),
        NON_LOCAL_CAFFE2,
        unused='^(lr|model_iter|.*_momentum)$',
        classes=None,
    ),
}


def _compare(
    weights: Mapping[str, Tensor], family: Family, model: nn.Module
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """The state dict of the model as far as the weights give it, and by kind what is wrong with them."""
    own = model.state_dict()
    names = family.names(model) if family.names else {}
    state, unknown, unfit = {}, [], []
    for name, value in weights.items():
        if family.unused and re.search(family.unused, name):
            continue
        entry = names.get(name, name)
        for pattern, replacement in family.renames:
            entry = re.sub(pattern, replacement, entry)
        if entry not in own:
            unknown.append(name)
            continue
        if entry in state:
            unfit.append(f'{name}, which is a second {entry}')
        elif [n for n in value.shape if n != 1] != [n for n in own[entry].shape if n != 1]:
            unfit.append(f'{name} of shape {tuple(value.shape)}, not {tuple(own[entry].shape)}')
        elif value.is_floating_point() != own[entry].is_floating_point():
            unfit.append(f'{name} of type {value.dtype}')
        elif not value.isfinite().all():
            unfit.append(f'{name} with values that are not finite')
        else:
            value = value.reshape(own[entry].shape)
        state[entry] = value
    kind = next((value.dtype for value in state.values() if value.is_floating_point()), torch.float32)
    for entry in family.constants.keys() & own:
        state[entry] = torch.full(own[entry].shape, family.constants[entry], dtype=kind)
    for entry in own:  # old files lack these counters, which do not influence the output
        if entry.endswith('num_batches_tracked'):
            state.setdefault(entry, torch.tensor(0))
    missing = [entry for entry in own if entry not in state]
    problems = {'missing': missing, 'unknown': unknown, 'unfit': unfit}
    return {entry: state[entry] for entry in own if entry in state}, problems


def convert(
    weights: Mapping[str, Tensor | np.ndarray], family: str, models: Mapping[str, nn.Module]
) -> tuple[str, dict[str, Tensor]]:
    """Find the network that official weights belong to, and make its state dict of them.

    Dimensions of size 1 do not matter: (1, C, 1, 1) is as good as (C,), and a 1x1 convolution as a linear layer.

    Args:
        weights (Mapping[str, Tensor | np.ndarray]): Official weights, by their names in the official file.
        family (str): A key of :data:`FAMILIES`.
        models (Mapping[str, nn.Module]): The networks of the family by name. They may be on the meta device.

    Returns:
        tuple[str, dict[str, Tensor]]: The name of the network and its state dict, of the types of the weights.

    Raises:
        ValueError: If they fit none of the networks exactly: every weight has to be used, and every entry filled. The
            message says what is wrong for the network that comes closest.
    """
    row = FAMILIES[family]
    tensors = {name.removeprefix('module.'): torch.as_tensor(value) for name, value in weights.items()}
    if row.prepare is not None:
        tensors = row.prepare(tensors)
    compared = {name: _compare(tensors, row, model) for name, model in models.items()}
    name = min(compared, key=lambda name: sum(map(len, compared[name][1].values())))
    state, problems = compared[name]
    if any(problems.values()):
        lines = [f'{len(found)} {kind}: {listed(found, 8)}' for kind, found in problems.items() if found]
        raise ValueError(
            f'These are not the weights of an official network of the family {family}. Compared with {name}, which '
            'comes closest:\n' + '\n'.join(lines)
        )
    return name, state
