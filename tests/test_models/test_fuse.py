"""Fused and compiled: every registered backbone and classifier, as a tiny network."""

import pytest
import torch
from mmengine import registry as root
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmresattn.models import backbones, classifiers
from mmresattn.models.fuse import accelerate, fuse
from mmresattn.models.layers import edit_attention, record_attention
from tests.conftest import record_if_any

RESNET = dict(type='CIFARResNet', depth=8, base_channels=4, stem_channels=4)
CLASSIFIER = dict(
    type='ImageClassifier',
    backbone=RESNET,
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=4, in_channels=16),
)
ARCH = dict(base='attention56-cifar', channels=(8, 16, 32), modules=(1, 0, 1), units_after=(0, 0, 0), t=1)
TINY = {
    'AttentionResNet': dict(depth=18, base_channels=4, stem_channels=4, attention=dict(type='NonLocalAttention')),
    'CIFARDenseNet': dict(depth=10, growth_rate=4),
    'CIFARResNeXt': dict(depth=11, groups=2, width_per_group=2),
    'CIFARResNet': dict(depth=8, base_channels=4, stem_channels=4),
    'CIFARWideResNet': dict(depth=10, widen_factor=1, attention=dict(type='SqueezeExcitation', ratio=4)),
    'PayAttentionNet': dict(
        arch=dict(stages=('conv4', 'max2 conv6'), tail='max2 conv6', global_channels=6, gates=None), out_indices=(0, 1)
    ),
    'ResidualAttention': dict(
        trunk=dict(type='ResNet', depth=18, stem_channels=4, base_channels=4), poolings=(1, 1, None, None)
    ),
    'ResidualAttentionNet': dict(arch=ARCH, out_indices=(0, 1, 2), norm_outputs=True),
    'SEBNInception': dict(),
    'AttentionBranchNetwork': dict(backbone=RESNET, head=dict(type='AttentionBranchHead', num_classes=4)),
    'PayAttentionNetwork': dict(
        backbone=dict(type='CIFARResNet', depth=8, base_channels=4, stem_channels=4, out_indices=(1, 2)),
        head=dict(type='PayAttentionHead', num_classes=4),
    ),
    'BayesianAttentionBranchNetwork': dict(backbone=RESNET, head=dict(type='AttentionBranchHead', num_classes=4)),
    'GatedClassifier': dict(classifier=CLASSIFIER),
    'RightReasonsClassifier': dict(classifier=CLASSIFIER),
}
OTHERS = {  # more of what they are made of
    'resnext': dict(
        type='ResidualAttentionNet', arch=dict(ARCH, poolings=(1, 0, 1), unit='resnext', channels=(64, 64, 64))
    ),
    'bottleneck': dict(type='ResidualAttentionNet', arch=dict(ARCH, poolings=(1, 0, 1), unit='bottleneck')),
    'basic': dict(
        type='ResidualAttentionNet', arch=dict(ARCH, poolings=(1, 0, 1), unit='basic', mask_widths=(3, None, 3))
    ),
    'inception': dict(
        type='ResidualAttentionNet', arch=dict(ARCH, poolings=(1, 0, 1), unit='inception', channels=(16, 32, 32))
    ),
}


def build(name, dtype=torch.float64):
    """In evaluation mode, with statistics and affine weights that are neither zero nor one."""
    torch.manual_seed(0)
    model = MODELS.build(OTHERS.get(name) or {**TINY[name], 'type': name})
    for norm in model.modules():
        if isinstance(norm, _BatchNorm):
            nn.init.normal_(norm.running_mean, std=0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.weight, 1, 0.2)
            nn.init.normal_(norm.bias, std=0.2)
    model.to(dtype).eval()  # MMPretrain's return None
    return model


def images(*shape, dtype=torch.float64):
    batch, height, width = shape
    return torch.randn(batch, 3, height, width, dtype=dtype, generator=torch.Generator().manual_seed(1))


def outputs(model, x):
    out = model(x)
    return list(out) if isinstance(out, tuple | list) else [out]


def norms(model):
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def test_every_registered_backbone_and_classifier_is_here():
    for package in (backbones, classifiers):
        registered = {
            key
            for key, part in root.MODELS.module_dict.items()
            if part.__module__.startswith(package.__name__) and not key.endswith(('Neck', 'Head', 'Masker'))
        }
        assert registered <= set(TINY)


@pytest.mark.parametrize('name', [*TINY, *OTHERS])
def test_fused_models_give_the_same(name):
    model, x = build(name), images(2, 37, 32)
    before = [tensor.clone() for tensor in model.state_dict().values()]
    fused = fuse(model)
    assert norms(fused) < norms(model)
    with torch.no_grad(), record_if_any(model) as maps, record_if_any(fused) as fused_maps:
        for expected, out in zip(outputs(model, x), outputs(fused, x)):
            torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    assert list(maps) == list(fused_maps)
    for key, expected in maps.items():
        torch.testing.assert_close(fused_maps[key], expected, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(old, new) for old, new in zip(before, model.state_dict().values()))
    single, fused = model.float(), fuse(model)
    with torch.no_grad():
        for expected, out in zip(outputs(single, x.float()), outputs(fused, x.float())):
            assert (out - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())


def test_edits_pass_through_fused_models():
    model, x = build('ResidualAttentionNet'), images(2, 32, 32)
    fused = fuse(model)
    edits = {'stage1.attention1.map': torch.zeros_like}
    with torch.no_grad(), edit_attention(model, edits), edit_attention(fused, edits):
        for expected, out in zip(model(x), fused(x)):
            torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_what_is_used_elsewhere_is_not_folded():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(5))
            self.norms = nn.ModuleList(nn.BatchNorm2d(2) for _ in range(5))

        def forward(self, x):
            a = self.convs[0](x)
            x = self.norms[0](a) + a  # used twice
            x = self.norms[1](self.convs[1](x).relu())  # not fed by a convolution
            shared = self.norms[2](self.convs[2](x)) + self.norms[2](self.convs[3](x))  # one layer behind two
            last = self.convs[4](shared)
            return last, self.norms[4](last), self.norms[3](self.convs[1](x))  # returned; a convolution used twice

    torch.manual_seed(0)
    net = Net().eval()
    for norm in net.norms:
        nn.init.normal_(norm.running_mean)
    fused = fuse(net)
    assert norms(fused) == 5
    x = torch.randn(2, 2, 4, 4)
    assert all(torch.equal(a, b) for a, b in zip(net(x), fused(x)))


def test_training_models_are_not_fused():
    model = build('CIFARResNet')
    model.layer1.train()
    with pytest.raises(ValueError, match=r'layer1.* is in training mode: call .eval\(\)'):
        fuse(model)


# Backbones are compiled in test_backbones/test_compile.py, and the other classifiers in files of their own.
@pytest.mark.parametrize('name', ['PayAttentionNetwork', 'BayesianAttentionBranchNetwork'])
def test_compiles_without_a_graph_break_at_any_size(name):
    """Traced by Dynamo and functionalised, with batch, height and width unknown: one graph for all of them."""
    model = build(name)
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for shape in [(2, 37, 32), (3, 32, 41)]:
            x = images(*shape)
            for expected, out in zip(outputs(model, x), outputs(compiled, x)):
                torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    assert len(graphs) <= 2  # a side of 1 is compiled for itself


def test_the_fast_path_keeps_the_names_and_the_answers():
    model, x = build('ResidualAttentionNet', torch.float32), images(2, 32, 32, dtype=torch.float32)
    fast = accelerate(model, compile=False)
    assert fast.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), record_attention(fast) as maps:
        for expected, out in zip(model(x), fast(x)):
            torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
        out = accelerate(model, dtype=torch.bfloat16, compile=False)(x.bfloat16())[-1]
    assert list(maps) == [f'stage{i}.attention1.map' for i in (1, 3)]
    assert out.dtype == torch.bfloat16
    assert (out - model(x)[-1]).abs().mean() < 0.05 * model(x)[-1].abs().mean()
