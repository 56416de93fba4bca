"""Every backbone becomes one graph, whose height and width stay open, and gives what it gives in eager mode.

By default Dynamo traces and eager kernels run. ``MMRESATTN_COMPILE=inductor pytest -n 0 -s`` with this file lets the
compiler write the kernels too, and prints how long that took.
"""

import os
import time

import pytest
import torch
from mmengine.registry import MODELS
from torch._dynamo.utils import counters

import mmresattn.models  # noqa: F401

BACKEND = os.environ.get('MMRESATTN_COMPILE', 'eager')
SIZES = (96, 81)  # and three more of width: even and odd, with more than one position at the end
NON_LOCAL = dict(type='NonLocalAttention', sub_sample=True, stages=(False, (-1,)))


def one_stage(arch, cifar=False, **fields):
    """One stage, to be traced fast."""
    modules = (1, 1, 1) if cifar else (1, 1, 1, 0)
    return dict(arch=dict(base=arch, stem_channels=16, modules=modules, channels=(64,) * len(modules), **fields),
                out_indices=0)  # fmt: skip


# Tracing open sizes takes time by the layer: networks as small as their kind allows.
SMALL_RESNET = dict(depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,), stem_channels=8,
                    base_channels=8)  # fmt: skip
SMALL_PAN = dict(base='vgg-pan', stages=([8], [('max', 2), 8], [('max', 2), 8]), tail=[('max', 2), 8],
                 global_channels=8, gates=(None, [('max', 4), 8], None))  # fmt: skip
SE_AND_NON_LOCAL = [dict(type='SqueezeExcitation', ratio=4, stages=(True, False)), NON_LOCAL]
CASES = {
    'ResidualAttentionNet': [
        one_stage('attention56', t=1, bottom_units=1, poolings=(2, 2, 1, 0)),
        one_stage('attention-resnet18'),
        one_stage('attentionnext56'),
        one_stage('attentioninception56'),
        one_stage('attention452-cifar', cifar=True),
    ],
    'ResidualAttention': [dict(trunk=dict(type='ResNet', **SMALL_RESNET), poolings=(None, 1))],
    'AttentionResNet': [
        dict(SMALL_RESNET, attention=SE_AND_NON_LOCAL),
        dict(SMALL_RESNET, attention=dict(NON_LOCAL, mode='gaussian', sub_sample=False)),
        dict(SMALL_RESNET, attention=dict(NON_LOCAL, mode='dot_product', sub_sample=False)),
        dict(SMALL_RESNET, attention=dict(NON_LOCAL, mode='concatenation')),
    ],
    'SEBNInception': [dict(out_indices=(0,))],
    'CIFARResNet': [dict(depth=8, base_channels=8, stem_channels=8)],
    'CIFARResNeXt': [dict(depth=11, groups=2, width_per_group=8)],
    'CIFARWideResNet': [
        dict(depth=10, widen_factor=2, attention=dict(type='AttentionAugmentedConv', stages=(False, False, True))),
        dict(depth=10, widen_factor=4),
    ],
    'CIFARDenseNet': [dict(depth=10, growth_rate=8)],
    'PayAttentionNet': [dict(arch=arch) for arch in (SMALL_PAN, 'vgg-att', 'resnet164-att')],
}
if BACKEND == 'eager':
    CASES = {name: cases[:1] for name, cases in CASES.items()}


def test_every_backbone_has_a_case():
    prefix = 'mmresattn.models.backbones.'
    assert set(CASES) == {name for name, part in MODELS.module_dict.items() if part.__module__.startswith(prefix)}


@pytest.mark.parametrize(('name', 'index'), [(name, i) for name, cases in CASES.items() for i in range(len(cases))])
def test_one_graph_for_every_size(name, index):
    torch.manual_seed(0)
    torch.compiler.reset()
    counters.clear()
    backbone = MODELS.build(dict(type=name, **CASES[name][index])).eval()
    for parameter in backbone.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))  # what starts at 0 takes part
    compiled = torch.compile(backbone, backend=BACKEND, fullgraph=True, dynamic=True)
    begin = time.perf_counter()
    with torch.no_grad():
        for size in SIZES:
            x = torch.randn(2, 3, size, size + 3)
            for out, expected in zip(compiled(x), backbone(x), strict=True):
                assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()
    graphs = counters['stats']['unique_graphs']
    if BACKEND != 'eager':
        print(f'{name} {CASES[name][index]}: {graphs} graphs, {time.perf_counter() - begin:.0f} s')
    # No size is traced again; the compiler takes poolings that round up once for even and once for odd sizes.
    assert graphs <= (1 if BACKEND == 'eager' else len(SIZES))
