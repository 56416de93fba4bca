"""Official networks, written down a second time of torch's functions alone, against ours with the converted weights.

Each function below draws the weights that it asks for, under the names of the official file, and gives the outputs.
"""

import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from mmresattn.weights import read_checkpoint
from mmresattn.weights.blobs import read_blobs
from mmresattn.weights.official import FAMILIES, convert
from tests.conftest import ROOT
from tools.model_converters import import_official

EPS = 1e-5


class Official:
    """Layers of an official network, whose weights are drawn when they are first asked for.

    Statistics lie around those of what is normalised, so that no activation dies or explodes: a difference anywhere
    then reaches the outputs.
    """

    conv_names = ('{}.weight', '{}.bias')
    norm_names = ('{}.weight', '{}.bias', '{}.running_mean', '{}.running_var')

    def __init__(self, dtype=torch.float64):
        self.weights = {}
        self.dtype = dtype
        self.generator = torch.Generator().manual_seed(0)

    def randn(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=self.dtype)

    def weight(self, name, draw):
        if name not in self.weights:
            self.weights[name] = draw()
        return self.weights[name]

    def conv(self, x, name, channels, kernel=1, stride=1, groups=1, bias=False):
        shape = (channels, x.shape[1] // groups, kernel, kernel)
        weight = self.weight(
            self.conv_names[0].format(name), lambda: self.randn(*shape) * math.sqrt(2 / math.prod(shape[1:]))
        )
        bias = self.weight(self.conv_names[1].format(name), lambda: self.randn(channels) / 2) if bias else None
        return F.conv2d(x, weight, bias, stride, kernel // 2, groups=groups)

    def linear(self, x, name, classes):
        weight = self.weight(
            self.conv_names[0].format(name), lambda: self.randn(classes, x.shape[1]) / x.shape[1] ** 0.5
        )
        return x @ weight.T + self.weight(self.conv_names[1].format(name), lambda: self.randn(classes))

    def bn(self, x, name, relu=False, eps=EPS):
        c = x.shape[1]
        axes = [axis for axis in range(x.ndim) if axis != 1]
        std = x.var(axes).mean().sqrt()
        draws = (
            lambda: 1 + 0.2 * self.randn(c),
            lambda: 0.2 * self.randn(c),
            lambda: x.mean(axes) + 0.3 * std * self.randn(c),
            lambda: (0.5 * self.randn(c)).exp() * std**2,
        )
        parts = self.norm_parts(name, draws)
        slope, bias, mean, variance = (part.view(-1, *[1] * (x.ndim - 2)) for part in parts)
        x = (x - mean) / (variance + eps).sqrt() * slope + bias
        return x.relu() if relu else x

    def norm_parts(self, name, draws):
        return [self.weight(suffix.format(name), draw) for suffix, draw in zip(self.norm_names, draws)]

    def conv_bn(self, x, conv, bn, channels, kernel=1, stride=1, groups=1, relu=True):
        return self.bn(self.conv(x, conv, channels, kernel, stride, groups), bn, relu)

    def residual(self, x, name, channels, width, stride=1, project=None, names=None, groups=1, caffe=False, se=None):
        """A post-activation bottleneck, or with a `width` of None a basic block."""
        names = names or [(f'conv{k}', f'bn{k}') for k in (1, 2, 3)] + [('downsample.0', 'downsample.1')]
        (c1, b1), (c2, b2), (c3, b3), (cs, bs) = [[f'{name}{part}' for part in pair] for pair in names]
        if width is None:
            h = self.conv_bn(x, c1, b1, channels, 3, stride)
            h = self.conv_bn(h, c2, b2, channels, 3, relu=False)
        else:
            first, second = (stride, 1) if caffe else (1, stride)
            h = self.conv_bn(x, c1, b1, width, 1, first)
            h = self.conv_bn(h, c2, b2, width, 3, second, groups)
            h = self.conv_bn(h, c3, b3, channels, relu=False)
        if se is not None:
            h = self.squeeze_excitation(h, *(f'{name}{part}' for part in se))
        if project if project is not None else stride != 1 or x.shape[1] != channels:
            x = self.conv_bn(x, cs, bs, channels, 1, stride, relu=False)
        return (h + x).relu()

    def squeeze_excitation(self, x, down, up, ratio=16):
        c = x.shape[1]
        s = self.conv(x.mean((2, 3), keepdim=True), down, c // ratio, bias=True).relu()
        return x * self.conv(s, up, c, bias=True).sigmoid()


def caffe_pool(x):
    """3x3, stride 2, no padding; the number of windows is rounded up and the last ones are cut."""
    missing = [(math.ceil((side - 3) / 2)) * 2 + 3 - side for side in x.shape[2:]]
    return F.max_pool2d(F.pad(x, (0, missing[1], 0, missing[0]), value=-math.inf), 3, 2)


# --- Attention Branch Network -----------------------------------------------------------------------------------------


def abn(net, g, branch_stage, stage, classes, classifier='fc', normalise=True):
    """Scores of both branches and the map, of the features g."""
    a = branch_stage(g)
    used = net.bn(a, 'bn_att')
    a = net.bn(net.conv(used if normalise else a, 'att_conv', classes), 'bn_att2', relu=True)
    attention = net.bn(net.conv(a, 'att_conv3', 1, 3), 'bn_att3').sigmoid()
    assert attention.std() > 0.1
    attention_scores = net.conv(a, 'att_conv2', classes).mean((2, 3))
    h = stage(g * attention + g)
    return attention_scores, net.linear(h.mean((2, 3)), classifier, classes), attention


def layer(net, name, blocks, channels, width, stride):
    def run(x):
        for i in range(blocks):
            x = net.residual(x, f'{name}.{i}.', channels, width, stride if i == 0 else 1)
        return x

    return run


def abn_imagenet(net, x):
    x = F.max_pool2d(net.conv_bn(x, 'conv1', 'bn1', 8, 7, 2), 3, 2, 1)
    for k, blocks in enumerate((3, 4, 6), 1):
        x = layer(net, f'layer{k}', blocks, 32 * 2 ** (k - 1), 8 * 2 ** (k - 1), 1 if k == 1 else 2)(x)
    return abn(net, x, layer(net, 'att_layer4', 3, 256, 64, 1), layer(net, 'layer4', 3, 256, 64, 2), 7)


def abn_cifar_resnet(depth):
    def network(net, x):
        n = (depth - 2) // 6
        widths = [(4 * w, w) if depth >= 44 else (w, None) for w in (16, 32, 64)]
        x = net.conv_bn(x, 'conv1', 'bn1', 16, 3)
        x = layer(net, 'layer1', n, *widths[0], 1)(x)
        x = layer(net, 'layer2', n, *widths[1], 2)(x)
        return abn(net, x, layer(net, 'att_layer3', n, *widths[2], 1), layer(net, 'layer3', n, *widths[2], 2), 7)

    return network


def abn_wrn(net, x):
    def block(name, channels, stride):
        def run(x):
            for i in range(2):
                unit = f'{name}.layer.{i}.'
                h = net.bn(x, f'{unit}bn1', relu=True)
                step = stride if i == 0 else 1
                if x.shape[1] != channels:
                    x = net.conv(h, f'{unit}convShortcut', channels, 1, step)
                h = net.bn(net.conv(h, f'{unit}conv1', channels, 3, step), f'{unit}bn2', relu=True)
                x = x + net.conv(h, f'{unit}conv2', channels, 3)
            return x

        return run

    x = block('block2', 64, 2)(block('block1', 32, 1)(net.conv(x, 'conv1', 16, 3)))
    return abn(net, x, block('att_block3', 128, 1), lambda x: net.bn(block('block3', 128, 2)(x), 'bn1', relu=True), 7)


def abn_densenet(net, x):
    def dense(name):
        def run(x):
            for i in range(2):
                h = net.conv(net.bn(x, f'{name}.{i}.bn1', relu=True), f'{name}.{i}.conv1', 48)
                h = net.conv(net.bn(h, f'{name}.{i}.bn2', relu=True), f'{name}.{i}.conv2', 12, 3)
                x = torch.cat([x, h], 1)
            return x

        return run

    x = net.conv(x, 'conv1', 24, 3)
    for k in (1, 2):
        x = dense(f'dense{k}')(x)
        x = F.avg_pool2d(net.conv(net.bn(x, f'trans{k}.bn1', relu=True), f'trans{k}.conv1', x.shape[1] // 2), 2)
    return abn(net, x, dense('att_dense3'), lambda x: net.bn(dense('dense3')(x), 'bn', relu=True), 100)


def abn_resnext(net, x):
    names = [
        ('conv_reduce', 'bn_reduce'),
        ('conv_conv', 'bn'),
        ('conv_expand', 'bn_expand'),
        ('shortcut.shortcut_conv', 'shortcut.shortcut_bn'),
    ]

    def stage(name, channels, width, stride):
        def run(x):
            for i in range(2):
                unit = f'{name}.{name}_bottleneck_{i}.'
                x = net.residual(x, unit, channels, width, stride if i == 0 else 1, names=names, groups=2)
            return x

        return run

    x = net.conv_bn(x, 'conv_1_3x3', 'bn_1', 64, 3)
    x = stage('stage_2', 512, 16, 2)(stage('stage_1', 256, 8, 1)(x))
    branch, perception = stage('stage_att', 1024, 32, 1), stage('stage_3', 1024, 32, 2)
    return abn(net, x, branch, perception, 7, 'classifier', normalise=False)


def abn_celeba(outputs):
    def network(net, x):
        x = F.max_pool2d(net.conv_bn(x, 'conv1', 'bn1', 8, 7, 2), 3, 2, 1)
        for k in (1, 2, 3):
            x = layer(net, f'layer{k}', 2, 8 * 2 ** (k - 1), None, 1 if k == 1 else 2)(x)
        maps = net.conv(layer(net, 'layer4_att', 2, 64, None, 1)(x), 'conv_att', 3)
        scores = []
        for t in range(3):
            h = layer(net, 'layer4', 2, 64, None, 2)(x * maps[:, t : t + 1]).mean((2, 3))
            out = net.linear(h, f'output_per.{t}', outputs)
            scores.append(out[:, 0] if outputs == 1 else out[:, 1] - out[:, 0])
        return maps.mean((2, 3)), torch.stack(scores, 1), maps

    return network


# --- Squeeze-and-Excitation -------------------------------------------------------------------------------------------


def se_resnet(conv_bn, pool, rest, unit, se, groups=1, caffe=True, names=None):
    """SE-ResNet-50 and SE-ResNeXt-50, narrow. `caffe` is about the stride, `unit` gives the names of the units."""

    def network(net, x):
        x = pool(net.conv_bn(x, *conv_bn, 32, 7, 2))
        for k, blocks in enumerate((3, 4, 6, 3)):
            for i in range(blocks):
                stride = 2 if i == 0 and k else 1
                x = net.residual(x, unit(k, i), 128 * 2**k, 32 * 2**k, stride, None, names, groups, caffe, se)
        return net.linear(x.mean((2, 3)), rest, 7)

    return network


def padded_pool(x):
    return F.max_pool2d(x, 3, 2, 1)


def se_resnet_legacy(groups):
    """Cadene's port, which timm calls legacy."""
    unit, se = 'layer{}.{}.'.format, ('se_module.fc1', 'se_module.fc2')
    stem = ('layer0.conv1', 'layer0.bn1')
    return se_resnet(stem, caffe_pool, 'last_linear', lambda k, i: unit(k + 1, i), se, groups, caffe=groups == 1)


def se_resnet_timm():
    unit, se = 'layer{}.{}.'.format, ('se.fc1', 'se.fc2')
    return se_resnet(('conv1', 'bn1'), padded_pool, 'fc', lambda k, i: unit(k + 1, i), se, caffe=False)


class SENetBlobs(Official):
    """Caffe's BatchNorm keeps sums of statistics and their weight; a layer Scale follows."""

    conv_names = ('{}.0', '{}.1')
    norm_names = ('{}/bn/scale.0', '{}/bn/scale.1', '{}/bn.0', '{}/bn.1')

    def norm_parts(self, name, draws):
        slope, bias, mean, variance = super().norm_parts(name, draws)
        self.weights[f'{name}/bn.2'] = torch.tensor([999.98], dtype=self.dtype)
        self.weights[f'{name}/bn.0'] = mean * 999.98
        self.weights[f'{name}/bn.1'] = variance * 999.98
        return slope, bias, mean, variance


def senet_caffe(groups):
    unit, se, stem = 'conv{}_{}_'.format, ('1x1_down', '1x1_up'), 2 * ('conv1/7x7_s2',)
    names = [(part, part) for part in ('1x1_reduce', '3x3', '1x1_increase', '1x1_proj')]
    return se_resnet(
        stem, caffe_pool, 'classifier', lambda k, i: unit(k + 2, i + 1), se, groups, caffe=groups == 1, names=names
    )


INCEPTION = {  # 1x1; 3x3; double 3x3; pooling and projection
    '3a': (64, (64, 64), (64, 96, 96), ('avg', 32)),
    '3b': (64, (64, 96), (64, 96, 96), ('avg', 64)),
    '3c': (None, (128, 160), (64, 96, 96), None),
    '4a': (224, (64, 96), (96, 128, 128), ('avg', 128)),
    '4b': (192, (96, 128), (96, 128, 128), ('avg', 128)),
    '4c': (160, (128, 160), (128, 160, 160), ('avg', 128)),
    '4d': (96, (128, 192), (160, 192, 192), ('avg', 128)),
    '4e': (None, (128, 192), (192, 256, 256), None),
    '5a': (352, (192, 320), (160, 224, 224), ('avg', 128)),
    '5b': (352, (192, 320), (192, 224, 224), ('max', 128)),
}


def se_bn_inception(net, x):
    def conv(x, name, channels, kernel=1, stride=1):
        return net.conv_bn(x, name, name, channels, kernel, stride)

    x = caffe_pool(conv(x, 'conv1/7x7_s2', 64, 7, 2))
    x = caffe_pool(conv(conv(x, 'conv2/3x3_reduce', 64), 'conv2/3x3', 192, 3))
    for name, (one, two, three, pool) in INCEPTION.items():
        name = f'inception_{name}'
        stride = 2 if one is None else 1
        parts = [] if one is None else [conv(x, f'{name}/1x1', one)]
        parts.append(conv(conv(x, f'{name}/3x3_reduce', two[0]), f'{name}/3x3', two[1], 3, stride))
        h = conv(conv(x, f'{name}/double3x3_reduce', three[0]), f'{name}/double3x3a', three[1], 3)
        parts.append(conv(h, f'{name}/double3x3b', three[2], 3, stride))
        if pool is None:
            parts.append(caffe_pool(x))
        else:
            pooled = F.avg_pool2d(x, 3, 1, 1) if pool[0] == 'avg' else F.max_pool2d(x, 3, 1, 1)
            parts.append(conv(pooled, f'{name}/pool_proj', pool[1]))
        x = net.squeeze_excitation(torch.cat(parts, 1), f'{name}_1x1_down', f'{name}_1x1_up')
    return net.linear(x.mean((2, 3)), 'classifier', 1000)


# --- Learn To Pay Attention, SaoYan's port ----------------------------------------------------------------------------


def vgg_attention(before):
    def network(net, x):
        def block(x, k, channels, number, pool=False):
            at = 0
            for _ in range(number):
                x = net.bn(net.conv(x, f'conv_block{k}.op.{at}', channels, 3, bias=True), f'conv_block{k}.op.{at + 1}')
                x = x.relu()
                at += 3
                if pool:
                    x, at = F.max_pool2d(x, 2), at + 1
            return x

        x = block(block(x, 1, 4, 2), 2, 8, 2)
        local = []
        for k, channels in ((3, 16), (4, 32), (5, 32)):
            h = block(x, k, channels, 3)
            x = F.max_pool2d(h, 2)
            local.append(h if before else x)
        g = net.conv(block(x, 6, 32, 2, pool=True), 'dense', 32, bias=True)
        local[0] = net.conv(local[0], 'projector.op', 32)
        attended = []
        for k, features in enumerate(local, 1):
            scores = net.conv(features + g, f'attn{k}.op', 1)
            weights = scores.flatten(2).softmax(2).view_as(scores)
            attended.append((weights * features).sum((2, 3)))
        return net.linear(torch.cat(attended, 1), 'classify', 7)

    return network


# --- Non-local networks, of Caffe2 ------------------------------------------------------------------------------------


class Caffe2Blobs(Official):
    """Layers of clips (N, C, T, H, W), with kernels of one frame."""

    conv_names = ('{}_w', '{}_b')
    norm_names = ('{}_bn_s', '{}_bn_b', '{}_bn_rm', '{}_bn_riv')

    def conv(self, x, name, channels, kernel=1, stride=1, groups=1, bias=False):
        shape = (channels, x.shape[1], 1, kernel, kernel)
        weight = self.weight(f'{name}_w', lambda: self.randn(*shape) * math.sqrt(2 / math.prod(shape[1:])))
        bias = self.weight(f'{name}_b', lambda: self.randn(channels) / 2) if bias else None
        return F.conv3d(x, weight, bias, (1, stride, stride), (0, kernel // 2, kernel // 2))

    def bn(self, x, name, relu=False):
        return super().bn(x, name, relu, eps=1.0000001e-5)


def non_local_c2d(net, x):
    x = x[:, :, None].expand(-1, -1, 4, -1, -1)  # a clip that stands still
    x = F.max_pool3d(net.conv_bn(x, 'conv1', 'res_conv1', 8, 7, 2), (1, 3, 3), (1, 2, 2))
    names = [(part, part) for part in ('branch2a', 'branch2b', 'branch2c', 'branch1')]
    for k, blocks in enumerate((3, 4, 6, 3)):
        for i in range(blocks):
            stride = 2 if i == 0 and k else 1
            x = net.residual(x, f'res{k + 2}_{i}_', 32 * 2**k, 8 * 2**k, stride, names=names)
            if k in (1, 2) and i % 2:
                x = x + non_local_block(net, x, f'nonlocal_conv{k + 2}_{i}')
        if k == 0:
            x = F.max_pool3d(x, (2, 1, 1), (2, 1, 1))
    return net.linear(x.mean((2, 3, 4)), 'pred', 7)


def non_local_block(net, x, name):
    c = x.shape[1] // 2
    pooled = F.max_pool3d(x, (1, 2, 2))
    theta = net.conv(x, f'{name}_theta', c, bias=True).flatten(2)
    phi, g = (net.conv(pooled, f'{name}_{part}', c, bias=True).flatten(2) for part in ('phi', 'g'))
    p = (theta.transpose(1, 2) @ phi * c**-0.5).softmax(2)
    y = (g @ p.transpose(1, 2)).view(len(x), c, *x.shape[2:])
    return net.bn(net.conv(y, f'{name}_out', 2 * c, bias=True), name)


# --- Residual Attention Network ---------------------------------------------------------------------------------------


class ResidualAttentionBlobs(Official):
    """The authors' BN keeps the inverse standard deviation; a BN is named after the blob that it normalises."""

    conv_names = ('{}.0', '{}.1')
    norm_names = tuple(f'{{}}/bn.{k}' for k in range(4))

    def norm_parts(self, name, draws):
        slope, bias, mean, variance = super().norm_parts(name, draws)
        self.weights[f'{name}/bn.3'] = (variance + EPS) ** -0.5
        return slope, bias, mean, variance


def residual_attention(arch):
    plain = 'next' not in arch

    def network(net, x):
        def unit(x, bottom, name, width, stride=1, projection=False):
            """`x` is the blob `bottom`; the result is the blob `name`."""
            convs = [f'{name}/branch1/{part}' for part in ('conv1_1x1', 'conv2_3x3', 'conv3_1x1')]
            shortcut = f'{name}/branch2/conv1_1x1'
            if not plain:
                names = [(conv.removeprefix(name), conv.removeprefix(name)) for conv in (*convs, shortcut)]
                return net.residual(x, name, width, width // 2, stride, projection, names, groups=32)
            activated = net.bn(x, bottom, relu=True)
            h = net.bn(net.conv(activated, convs[0], width // 4), convs[0], relu=True)
            h = net.bn(net.conv(h, convs[1], width // 4, 3, stride), convs[1], relu=True)
            h = net.conv(h, convs[2], width)
            return h + (net.conv(activated, shortcut, width, stride=stride) if projection else x)

        def attention(x, bottom, name, width, depth):
            down, up = (f'{name}/mask/{way}{"_sample" if plain else ""}' for way in ('down', 'up'))

            def interp(x, like):
                return F.interpolate(x, like.shape[2:], mode='bilinear', align_corners=True)

            res1 = unit(x, bottom, f'{name}/trunk/res1', width)
            trunk = unit(res1, f'{name}/trunk/res1', f'{name}/trunk/res2', width)
            trunk = unit(trunk, f'{name}/trunk/res2', f'{name}/trunk/res3', width)
            x, downs = res1, {}
            for level in range(1, depth + 1):
                x = downs[level] = unit(caffe_pool(x), f'{down}/pool{level}_3x3_s2', f'{down}/res{level}_1', width)
            x = unit(x, f'{down}/res{depth}_1', f'{down}/res{depth}_2', width)
            for level in range(depth - 1, 0, -1):
                skip = unit(downs[level], f'{down}/res{level}_1', f'{name}/mask/skip/res{level}', width)
                x = unit(interp(x, skip) + skip, f'{up}{level}', f'{up}/res{level}_1', width)
            x = interp(x, trunk)
            if plain:
                x = net.bn(x, f'{up}/interp_1', relu=True)
            x = net.bn(net.conv(x, f'{name}/mask/linear_1', width), f'{name}/mask/linear_1', relu=True)
            mask = net.conv(x, f'{name}/mask/linear_2', width).sigmoid()
            assert 0.1 < mask.std() < 0.3  # neither constant nor saturated, or this would be a weak test of the mask
            return unit(mask * trunk + trunk, f'{name}/fusion', name, width)

        x = caffe_pool(net.conv_bn(x, 'conv1', 'conv1', 64, 7, 2))
        bottom = 'pool1_3x3_s2'
        for i, (modules, width) in enumerate(zip((1, 2, 3) if '92' in arch else (1, 1, 1), (64, 128, 256))):
            x = unit(x, bottom, f'pre_res_{i + 1}', width, min(i + 1, 2), projection=True)
            bottom = f'pre_res_{i + 1}'
            for k in range(modules):
                name = f'Attention{"ABC"[i]}_{k + 1}'
                x, bottom = attention(x, bottom, name, width, 3 - i), name
        for k in range(3):
            x = unit(x, bottom, f'post_res_4_{k + 1}', 512, 1 if k else 2, projection=not k)
            bottom = f'post_res_4_{k + 1}'
        x = net.bn(x, bottom, relu=True) if plain else x
        return net.linear(x.mean((2, 3)), 'classifier', 1000)

    return network


# --- Ours -------------------------------------------------------------------------------------------------------------


def config(name):
    return Config.fromfile(next(ROOT.glob(f'configs/*/{name}.py')))


def built(model):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(model).eval()


def shipped(name, **changes):
    """The model of a config, narrower where it is only a test of names."""
    cfg = config(name)
    cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    return cfg.model


def branch_network(backbone, classes, several_tasks=False):
    neck = dict(type='MultiTaskAttentionBranchNeck', pool='avg') if several_tasks else {}
    head = dict(type='MultiTaskAttentionBranchHead' if several_tasks else 'AttentionBranchHead', num_classes=classes)
    return dict(type='AttentionBranchNetwork', backbone=backbone, neck=neck, head=head)


NARROW = dict(stem_channels=8, base_channels=8)
VGG = {64: 4, 128: 8, 256: 16, 512: 32}  # channels


def narrow_vgg(name):
    model = shipped(name)
    arch = model.backbone.arch
    stages = [[VGG.get(layer, layer) for layer in layers] for layers in (*arch.stages, arch.tail)]
    arch.update(stages=stages[:-1], tail=stages[-1], global_channels=32)
    model.head.num_classes = 7
    return model


def narrow_se(name):
    groups = {'backbone.groups': 8} if 'next' in name else {}
    narrow = {'backbone.stem_channels': 32, 'backbone.base_channels': 32, **groups}
    return shipped(f'{name}_imagenet', **narrow, **{'head.in_channels': 1024, 'head.num_classes': 7})


def narrow_residual_attention(arch):
    model = shipped(f'{arch}_imagenet', **{'head.in_channels': 512})
    model.backbone.arch = dict(base=arch, channels=(64, 128, 256, 512))
    return model


# Family, official network, its blobs, our network, sides of the images.
NETWORKS = {
    **{
        arch: ('residual-attention-caffe', residual_attention(arch), ResidualAttentionBlobs,
               lambda arch=arch: narrow_residual_attention(arch), (64, 80))
        for arch in ('attention92', 'attentionnext92')
    },
    'abn-resnet50': (
        'abn-imagenet', abn_imagenet, Official,
        lambda: branch_network(dict(type='ResNet', depth=50, **NARROW), 7), (64, 80),
    ),
    'abn-cifar-resnet': (
        'abn-cifar-resnet', abn_cifar_resnet(8), Official,
        lambda: branch_network(dict(type='CIFARResNet', depth=8), 7), (16, 16),
    ),
    'abn-wrn': (
        'abn-cifar-wrn', abn_wrn, Official,
        lambda: branch_network(dict(type='CIFARWideResNet', depth=16, widen_factor=2), 7), (16, 16),
    ),
    'abn-resnext': (
        'abn-cifar-resnext', abn_resnext, Official,
        lambda: branch_network(dict(type='CIFARResNeXt', depth=20, groups=2, width_per_group=4), 7), (16, 16),
    ),
    **{
        f'abn-celeba-{outputs}': (
            'abn-celeba', abn_celeba(outputs), Official,
            lambda: branch_network(dict(type='ResNet', depth=18, **NARROW), 3, several_tasks=True), (64, 80),
        )
        for outputs in (1, 2)
    },
    'senet-caffe': ('senet-caffe', senet_caffe(1), SENetBlobs, lambda: narrow_se('se-resnet50-caffe'), (64, 80)),
    'se-bn-inception': (
        'se-bn-inception-caffe', se_bn_inception, SENetBlobs, lambda: shipped('se-bn-inception_imagenet'), (64, 96),
    ),
    'se-resnext50-legacy': (
        'se-resnet-legacy', se_resnet_legacy(8), Official, lambda: narrow_se('se-resnext50'), (64, 80),
    ),
    'se-resnet50-timm': ('se-resnet', se_resnet_timm(), Official, lambda: narrow_se('se-resnet50'), (64, 80)),
    **{
        f'vgg-attention-{way}': (
            f'vgg-attention-{way}', vgg_attention(way == 'before'), Official,
            lambda way=way: narrow_vgg(f'vgg-att3-pc-{way}_cifar100'), (32, 32),
        )
        for way in ('before', 'after')
    },
    'non-local-c2d': (
        'non-local-caffe2', non_local_c2d, Caffe2Blobs,
        lambda: shipped('nonlocal-resnet50-5block_kinetics400', **{
            'backbone.stem_channels': 8, 'backbone.base_channels': 8, 'head.in_channels': 256, 'head.num_classes': 7,
        }), (64, 96),
    ),
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize('name', NETWORKS)
def test_findings_K1_19_outputs_are_those_of_the_official_network(name):
    family, network, layers, model, sides = NETWORKS[name]
    official = layers()
    images = official.randn(2, 3, *sides)
    expected = network(official, images)
    model = built(model()).double()
    used, state = convert(official.weights, family, {name: model})
    model.load_state_dict(state, strict=True)
    assert used == name
    assert all(value.dtype == torch.float64 for key, value in state.items() if 'num_batches' not in key)
    outputs = model(images, mode='tensor')
    if isinstance(expected, tuple):
        attention_scores, expected, maps = expected
        neck = model.neck(model.backbone(images))
        for own, theirs in ((neck[1], attention_scores), (neck[2], maps)):
            assert (own - theirs).abs().max() <= 1e-10 * theirs.abs().max()
    difference = ((outputs - expected).abs().max() / expected.abs().max()).item()
    print(f'{name}: {difference:.1e} of the largest')
    assert difference <= 1e-10
    assert (outputs[0] - outputs[1]).std() > 0.01 * outputs.std()  # the outputs depend on the image


# --- Plain networks of MMPretrain's zoo under attention ---------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(
    'name, same',
    [
        ('nonlocal-resnet50-5block-pretrained_imagenet', ['backbone']),
        ('resnet50-att2-dp-pretrained_imagenet', ['backbone']),
        ('abn-resnet50-pretrained_imagenet', ['backbone', 'neck.stage', 'head.stage']),
    ],
)
def test_networks_that_begin_as_a_resnet_of_the_zoo(name, same, tmp_path):
    plain = built(dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=50, **NARROW)))
    torch.save(dict(state_dict=plain.state_dict()), tmp_path / 'resnet50.pth')
    assert re.fullmatch(
        r'https://download.openmmlab.com/.*/resnet50_8xb32_in1k_\w+-\w+.pth', shipped(name).backbone.init_cfg.checkpoint
    )
    changes = dict(NARROW, **{'init_cfg.checkpoint': str(tmp_path / 'resnet50.pth')})
    model = shipped(name, **{f'backbone.{key}': value for key, value in changes.items()})
    if model.type == 'PayAttentionNetwork':
        model.neck.global_channels = 128
    elif model.head.type == 'LinearClsHead':
        model.head.in_channels = 256
    model = built(model)
    model.init_weights()
    theirs = plain.state_dict()
    for part in same:
        for key, value in model.get_submodule(part).state_dict().items():
            if 'nonlocal_block' not in key:
                assert torch.equal(value, theirs[f'backbone.{key}']), key
    if name.startswith('nonlocal'):  # whose blocks are the identity
        images = torch.randn(2, 3, 64, 64)
        assert torch.equal(model.backbone(images)[-1], plain.backbone(images)[-1])


# --- The command line -------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def densenet(tmp_path_factory):
    """Weights of a small one of the authors' DenseNets, images, its scores, and the config of ours."""
    official = Official()
    images = official.randn(2, 3, 16, 16)
    with torch.no_grad():
        scores = abn_densenet(official, images)[1]
    cfg = config('abn-densenet100-12_cifar100')
    cfg.model = branch_network(dict(type='CIFARDenseNet', depth=16, growth_rate=12), 100)
    path = tmp_path_factory.mktemp('densenet') / 'abn-densenet16.py'
    cfg.dump(path)
    return official.weights, images, scores, path


@torch.no_grad()
def test_findings_K1_19_command_line(densenet, tmp_path, capsys):
    weights, images, expected, cfg = densenet
    src, out = tmp_path / 'model_best.pth.tar', tmp_path / 'abn.safetensors'
    state = {f'module.{name}': weight for name, weight in weights.items()}
    state['module.bn.num_batches_tracked'] = torch.tensor(7)  # which files from before PyTorch 0.4.1 lack
    torch.save(dict(state_dict=state, epoch=300, optimizer=dict(state={})), src)
    import_official.main(['abn-cifar-densenet', str(src), str(out), '--config', str(cfg)])
    model = built(Config.fromfile(cfg).model).double()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert capsys.readouterr().out.splitlines() == [
        f'abn-densenet16: {parameters:,} parameters, 100 names of classes, written to {out}',
        f'To test it: tools/test.py {cfg} {out}',
    ]
    checkpoint = read_checkpoint(out)
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    counts = [value.item() for key, value in checkpoint['state_dict'].items() if 'num_batches' in key]
    assert sum(counts) == checkpoint['state_dict']['head.stage.norm.0.num_batches_tracked'] == 7
    assert (model(images, mode='tensor') - expected).abs().max() <= 1e-10 * expected.abs().max()
    meta = checkpoint['meta']
    assert meta['dataset_meta']['classes'][:2] == ['apple', 'aquarium_fish']
    mean, std = ([255 * value for value in values] for values in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
    pixels = meta['mmresattn']['preprocessing']  # of the authors' code, for both CIFARs
    assert pixels['mean'] == pytest.approx(mean, abs=0.02) and pixels['std'] == pytest.approx(std, abs=0.02)
    assert pixels['to_rgb']


def test_pixels_and_classes_that_the_config_does_not_have(tmp_path, capsys, monkeypatch):
    """A Caffe network takes other pixels than the config, which the file and the last line say."""
    model = narrow_se('se-resnet50-caffe')
    path = tmp_path / 'narrow.py'
    body = config('se-resnet50-caffe_imagenet')
    body.model = model
    body.data_preprocessor.num_classes = 7
    body.dump(path)
    official = SENetBlobs(torch.float32)
    with torch.no_grad():
        senet_caffe(1)(official, official.randn(2, 3, 64, 64))
    np.savez(tmp_path / 'blobs.npz', **{name: blob.numpy() for name, blob in official.weights.items()})
    (tmp_path / 'names.txt').write_text('a\nb\nc\nd\ne\nf\ng\n')
    args = ['senet-caffe', str(tmp_path / 'blobs.npz'), str(tmp_path / 'out.safetensors'), '--config', str(path)]
    with pytest.raises(SystemExit):
        import_official.main(args)
    assert 'There are 1000 names of classes for the 7 classes of narrow' in capsys.readouterr().err
    import_official.main([*args, '--classes', str(tmp_path / 'names.txt')])
    assert (
        capsys.readouterr()
        .out.splitlines()[1]
        .endswith(
            '--cfg-options data_preprocessor.mean=[104.0,117.0,123.0] data_preprocessor.std=[1.0,1.0,1.0] '
            'data_preprocessor.to_rgb=False'
        )
    )
    meta = read_checkpoint(tmp_path / 'out.safetensors')['meta']
    assert meta['mmresattn']['preprocessing'] == dict(mean=[104, 117, 123], std=[1, 1, 1], to_rgb=False)
    assert meta['mmresattn']['layers']['backbone.layer2.0.conv1']['stride'] == 2
    assert meta['dataset_meta']['classes'] == list('abcdefg')


@pytest.mark.parametrize(
    'src, out, message',
    [
        ('one.npz', 'a.txt', 'must be a file that ends in .safetensors'),
        ('one.npz', 'folder.safetensors', 'must be a file'),
        ('nothing.npz', 'a.safetensors', 'No such file'),
        ('nothing.pth', 'a.safetensors', 'nothing.pth'),
        ('text.npz', 'a.safetensors', 'text.npz (8 bytes) is not a readable .npz file'),
        ('array.npz', 'a.safetensors', 'array.npz (152 bytes) is not a readable .npz file'),
        ('cut.npz', 'a.safetensors', 'is not a readable .npz file: it is not an archive, or a truncated one'),
        ('flipped.npz', 'a.safetensors', 'is not a readable .npz file: Bad CRC'),
        ('pickled.npz', 'a.safetensors', 'is not a readable .npz file: Object arrays cannot be loaded'),
        ('words.npz', 'a.safetensors', 'is not a readable .npz file: conv1.0 is an array of <U2'),
        ('bomb.npz', 'a.safetensors', 'is not a readable .npz file: it would unpack to 8,000,'),
    ],
)
def test_command_line_errors(src, out, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez('one.npz', **{'conv1.0': np.ones((64, 3, 7, 7), np.float32)})
    content = Path('one.npz').read_bytes()
    Path('cut.npz').write_bytes(content[:-100])
    Path('flipped.npz').write_bytes(content[:20000] + bytes([content[20000] ^ 1]) + content[20001:])
    Path('text.npz').write_text('no blobs')
    np.save('array', np.ones(3))
    Path('array.npy').rename('array.npz')
    np.savez('pickled.npz', **{'conv1.0': np.array([print], dtype=object)})
    np.savez('words.npz', **{'conv1.0': np.array(['no'])})
    np.savez_compressed('bomb.npz', **{'conv1.0': np.zeros(10**6)})
    Path('folder.safetensors').mkdir()
    with pytest.raises(SystemExit) as error:
        import_official.main(['senet-caffe', src, out])
    assert error.value.code == 2 and message in capsys.readouterr().err
    assert not Path('a.safetensors').exists()


# --- What is refused --------------------------------------------------------------------------------------------------


def test_everything_wrong_is_named(densenet):
    weights = dict(densenet[0])
    del weights['dense2.1.conv2.weight']
    weights['fc8.weight'] = torch.zeros(3)
    weights['classifier.weight'] = weights['fc.weight']  # becomes the same entry
    weights['conv1.weight'] = weights['conv1.weight'].transpose(0, 1)
    weights['bn.weight'] = torch.ones_like(weights['bn.weight'], dtype=torch.int64)
    weights['bn.bias'] = torch.full_like(weights['bn.bias'], torch.nan)
    with torch.device('meta'):
        models = {'densenet': built(Config.fromfile(densenet[3]).model)}
    with pytest.raises(ValueError) as error:
        convert(weights, 'abn-cifar-densenet', models)
    assert str(error.value).splitlines()[1:] == [
        '1 missing: backbone.stage2.0.block.1.conv2.weight',
        '1 unknown: fc8.weight',
        '4 unfit: conv1.weight of shape (3, 24, 3, 3), not (24, 3, 3, 3), bn.weight of type torch.int64, bn.bias with '
        'values that are not finite, classifier.weight, which is a second head.fc.weight',
    ]
    with pytest.raises(ValueError, match=r'missing: backbone.* and \d+ more'):
        convert({}, 'abn-cifar-densenet', models)


@torch.no_grad()
def test_findings_K1_11_se_resnets_of_other_strides_and_poolings_are_refused():
    timm_layers, legacy, with_our_names = se_resnet_timm(), se_resnet_legacy(1), built(narrow_se('se-resnet50'))
    weights = {'mmpretrain': with_our_names.state_dict()}
    for name, layers in (('timm', timm_layers), ('legacy', legacy)):
        official = Official()
        layers(official, official.randn(1, 3, 64, 64))
        weights[name] = official.weights
    for family, config_name, accepted in (
        ('se-resnet', 'se-resnet50', {'timm', 'mmpretrain'}),
        ('se-resnet-legacy', 'se-resnet50-caffe', {'legacy'}),
    ):
        with torch.device('meta'):
            models = {config_name: built(narrow_se(config_name))}
        for name, state in weights.items():
            if name in accepted:
                convert(state, family, models)
            else:
                with pytest.raises(ValueError, match=f'not the weights of an official network of the family {family}'):
                    convert(state, family, models)


def test_the_network_is_found_among_those_of_a_family():
    models = {depth: built(branch_network(dict(type='CIFARResNet', depth=depth), 7)) for depth in (8, 14)}
    for depth in models:
        official = Official()
        with torch.no_grad():
            abn_cifar_resnet(depth)(official, official.randn(1, 3, 16, 16))
        assert convert(official.weights, 'abn-cifar-resnet', models)[0] == depth
        del official.weights['fc.bias']
        with pytest.raises(ValueError, match=f'Compared with {depth}, .*\n1 missing: head.fc.bias$'):
            convert(official.weights, 'abn-cifar-resnet', models)


def test_inverse_deviations():
    model = built(narrow_residual_attention('attention56'))
    official = ResidualAttentionBlobs(torch.float32)
    with torch.no_grad():
        residual_attention('attention56')(official, official.randn(1, 3, 64, 64))
    # A channel that was always constant has the inverse standard deviation 1 / sqrt(eps).
    official.weights['conv1/bn.3'] = torch.full((1, 64, 1, 1), EPS**-0.5)
    _, state = convert(official.weights, 'residual-attention-caffe', {'attention56': model})
    assert state['backbone.stem.1.0.running_var'].abs().max() < 1e-11
    official.weights['conv1/bn.3'] *= -1
    with pytest.raises(ValueError, match='1 unfit: conv1/bn.3 with values that are not finite'):
        convert(official.weights, 'residual-attention-caffe', {'attention56': model})


def test_every_family_names_its_networks():
    for family, row in FAMILIES.items():
        assert row.networks, family
        for name in row.networks:
            assert (family, len(list(ROOT.glob(f'configs/*/{name}.py')))) == (family, 1)
        if row.classes is not None:
            assert len(import_official.CLASSES[row.classes]) in (40, 100, 1000)


# --- Files of Caffe and Caffe2 ----------------------------------------------------------------------------------------


def varint(value):
    out = b''
    while value >= 128:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def message(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def test_caffemodel(tmp_path):
    weight, bias = np.random.rand(300, 2, 1, 1).astype(np.float32), np.random.rand(300)
    shape = message(7, message(1, b''.join(map(varint, weight.shape))))
    legacy = b''.join(varint(number << 3) + varint(size) for number, size in enumerate((1, 1, 1, 300), 1))
    blobs = shape + message(5, weight.tobytes()), legacy + message(8, bias.tobytes())
    layer = message(1, b'conv1/7x7') + message(2, b'Convolution') + b''.join(message(7, blob) for blob in blobs)
    old = message(4, b'fc') + varint(5 << 3) + varint(14) + message(6, blobs[0])
    path = tmp_path / 'net.caffemodel'
    path.write_bytes(message(1, b'net') + message(100, layer) + message(100, message(1, b'relu')) + message(2, old))
    read = read_blobs(path)
    assert list(read) == ['conv1/7x7.0', 'conv1/7x7.1', 'fc.0']
    assert np.array_equal(read['conv1/7x7.0'], weight) and np.array_equal(read['fc.0'], weight)
    assert np.array_equal(read['conv1/7x7.1'], bias.reshape(1, 1, 1, 300)) and read['conv1/7x7.1'].dtype == np.float64
    content = path.read_bytes()
    for damaged in (content[:-1], b'hello world', b'', content[:40] + b'\xff' * 40):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r'net.caffemodel \([\d,]+ bytes\) is not a readable .caffemodel file'):
            read_blobs(path)


def python2_pickle(values, name=b'w'):
    """As Python 2 wrote ``{'blobs': {name: array}, ...}``: bytes are texts."""
    raw = np.asarray(values, '<f4').tobytes()
    array = b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR'
    kind = b'cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
    state = b'(K\x01K%c\x85' % len(values) + kind + b'\x89U' + bytes([len(raw)]) + raw + b'tb'
    return b'\x80\x02}U\x05blobs}U' + bytes([len(name)]) + name + array + state + b'ss.'


def test_caffe2_pickles(tmp_path):
    path = tmp_path / 'net.pkl'
    path.write_bytes(python2_pickle([1.5, -2.0, 3e-20]))
    read = read_blobs(path)
    assert list(read) == ['w'] and type(read['w']) is np.ndarray
    assert np.array_equal(read['w'], np.array([1.5, -2.0, 3e-20], np.float32))
    blobs = dict(conv1_w=np.random.rand(4, 3, 1, 2, 2).astype('>f8'), lr=np.float32([0.1]), model_iter=7)
    for content in (blobs, dict(blobs=blobs)):
        path.write_bytes(pickle.dumps(content, 2))
        read = read_blobs(path)
        assert np.array_equal(read['conv1_w'], blobs['conv1_w']) and read['model_iter'] == 7


class Call:
    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    'content',
    [
        dict(w=Call(Path.touch, Path('ran'))),
        dict(w=Call(eval, 'open("ran", "w")')),
        dict(w=np.array([Path('ran')], dtype=object)),
        dict(w=np.zeros(2, [('a', 'f4')])),
        dict(w=Call(np.ndarray, (2,), np.dtype('f4'), b'12345678')),
        dict(w=[1, 2]),
        [1, 2],
        {1: np.zeros(2)},
    ],
    ids=['method', 'eval', 'objects', 'records', 'memory', 'list', 'no dict', 'no name'],
)
def test_nothing_else_is_unpickled(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path('net.pkl')
    path.write_bytes(pickle.dumps(content, 2))
    with pytest.raises(ValueError, match=r'net.pkl \([\d,]+ bytes\) is not a readable .pkl file'):
        read_blobs(path)
    assert not Path('ran').exists()


def test_damaged_pickles(tmp_path):
    path = tmp_path / 'net.pkl'
    content = python2_pickle([1.0, 2.0])
    for damaged in (content[:-9], b'', b'hello', content.replace(b'K\x02\x85', b'K\x09\x85')):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match='is not a readable .pkl file'):
            read_blobs(path)
