"""The fast path for inference, and classifiers without a graph break."""

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmresattn.deployment import accelerate
from mmresattn.models.layers import record_attention

RESNET = dict(type='CIFARResNet', depth=8, base_channels=4, stem_channels=4)
ARCH = dict(base='attention56-cifar', channels=(8, 16, 32), modules=(1, 0, 1), units_after=(0, 0, 0), t=1)
TINY = {
    'ResidualAttentionNet': dict(arch=ARCH, out_indices=(0, 1, 2), norm_outputs=True),
    'PayAttentionNetwork': dict(
        backbone=dict(RESNET, out_indices=(1, 2)), head=dict(type='PayAttentionHead', num_classes=4)
    ),
    'BayesianAttentionBranchNetwork': dict(backbone=RESNET, head=dict(type='AttentionBranchHead', num_classes=4)),
}


def build(name, dtype=torch.float64):
    """In evaluation mode, with statistics and affine weights that are neither zero nor one."""
    torch.manual_seed(0)
    model = MODELS.build({**TINY[name], 'type': name})
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
