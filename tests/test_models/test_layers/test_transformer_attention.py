"""Transformers of MMPretrain, timm and torchvision under the tap, all in float64."""

import copy
import math
import pickle
import threading

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from mmpretrain.models import (
    BEiTViT,
    DeiT3,
    DistilledVisionTransformer,
    SwinTransformer,
    SwinTransformerV2,
    TIMMBackbone,
    VisionTransformer,
)
from mmpretrain.models.utils import ShiftWindowMSA
from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn
from torchvision.models import SwinTransformer as TorchvisionSwin
from torchvision.models import VisionTransformer as TorchvisionViT
from torchvision.models.swin_transformer import ShiftedWindowAttention

from mmresattn.models.layers import attention_maps, attention_rollout, edit_attention, record_attention
from mmresattn.visualization import spatial_maps

ARCH = dict(embed_dims=32, num_layers=2, num_heads=4, feedforward_channels=32)
WINDOWS = dict(embed_dims=16, depths=[2, 2], num_heads=[2, 4])
TIMM = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4)
TIMM_SWIN = dict(img_size=(24, 40), patch_size=4, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4))
TORCHVISION_SWIN = dict(patch_size=[4, 4], embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4])

NETS = {  # network; shape of its input; tokens that are no positions
    'ViT': (lambda: VisionTransformer(ARCH, img_size=32, patch_size=8), (32, 32), 1),
    'DeiT': (lambda: DistilledVisionTransformer(ARCH, img_size=32, patch_size=8), (32, 32), 2),
    'DeiT-III': (lambda: DeiT3(ARCH, img_size=32, patch_size=8), (32, 32), 1),
    'BEiT': (lambda: BEiTViT(ARCH, img_size=32, patch_size=8, out_type='avg_featmap'), (32, 32), 1),
    'Swin': (lambda: SwinTransformer(WINDOWS, window_size=4, out_indices=[1]), (32, 64), 0),
    'Swin, padded': (lambda: SwinTransformer(WINDOWS, window_size=4, pad_small_map=True, out_indices=[1]), (24, 40), 0),
    'Swin V2': (
        lambda: SwinTransformerV2(
            WINDOWS | dict(extra_norm_every_n_blocks=0), window_size=4, img_size=32, out_indices=[1]
        ),
        (32, 32),
        0,
    ),
    'timm ViT': (lambda: TIMMBackbone('vit_tiny_patch16_224', **TIMM), (32, 32), 1),
    'timm ViT, registers': (lambda: timm.create_model('vit_tiny_patch16_224', reg_tokens=4, **TIMM), (32, 32), 5),
    'timm BEiT': (lambda: timm.create_model('beit_base_patch16_224', **TIMM), (32, 32), 1),
    'timm EVA-02': (lambda: timm.create_model('eva02_tiny_patch14_224', **TIMM), (32, 32), 1),
    'timm Swin': (lambda: timm.create_model('swin_tiny_patch4_window7_224', **TIMM_SWIN), (24, 40), 0),
    'timm Swin V2': (lambda: timm.create_model('swinv2_tiny_window8_256', **TIMM_SWIN), (24, 40), 0),
    'torchvision ViT': (lambda: TorchvisionViT(32, 8, 2, 4, 32, 32), (32, 32), 1),
    'torchvision Swin': (lambda: TorchvisionSwin(**TORCHVISION_SWIN), (24, 40), 0),
}


def build(name):
    torch.manual_seed(0)
    make, shape, extra = NETS[name]
    net = make().double()
    net.eval()
    for parameter in net.parameters():  # also those that begin at zero, as the tables of positions and projections
        nn.init.normal_(parameter, std=0.2)
    return net, torch.randn(2, 3, *shape, dtype=torch.float64), extra


def output(net, x):
    out = net(x)
    while isinstance(out, tuple):
        out = out[-1]
    return out


@pytest.mark.parametrize('name', NETS)
@torch.no_grad()
def test_watching_changes_nothing_and_edits_act(name):
    net, x, extra = build(name)
    plain = output(net, x)
    with record_attention(net) as maps, edit_attention(net, {name: torch.clone for name in attention_maps(net)}):
        watched = output(net, x)
    assert torch.allclose(watched, plain, rtol=0, atol=1e-11)
    assert list(maps) == list(attention_maps(net)) and len(maps) >= 2
    for attention in maps.values():
        assert attention.shape[0] == 2 and attention.shape[2] == attention.shape[3] and attention.min() >= 0
        sums = attention.sum(-1)
        if 'padded' in name or x.shape[2] == 24:  # some weight is on keys of the padding
            assert 0 < sums.min() and sums.max() <= 1 + 1e-12
        else:
            assert torch.allclose(sums, torch.ones_like(sums))
    with edit_attention(net, {list(maps)[0]: lambda attention: attention.flip(-1)}):
        assert not torch.allclose(output(net, x), plain)
    assert torch.equal(output(net, x), plain)  # by the kernels of before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    placed = spatial_maps(net, maps, x.shape[2:])
    assert ('rollout' in placed) == (extra > 0)
    for layer, attention in maps.items():
        rows = attention[:, :, :1] if extra else attention
        assert torch.allclose(placed[layer].flatten(2), rows[..., extra:].mean(2).float(), atol=1e-6)


def from_weights(module, x, qkv, bias, heads):
    """Softmax of q k / sqrt(d), and v, by the definition."""
    q, k, v = F.linear(x, qkv, bias).chunk(3, -1)
    q, k, v = (one.unflatten(2, (heads, -1)).transpose(1, 2) for one in (q, k, v))
    scores = torch.einsum('nhqd,nhkd->nhqk', q, k) / math.sqrt(q.shape[-1])
    return scores.exp() / scores.exp().sum(-1, keepdim=True), v


@pytest.mark.parametrize('name', ['ViT', 'timm ViT', 'torchvision ViT'])
@torch.no_grad()
def test_maps_are_those_of_the_layers_own_weights(name):
    net, x, _ = build(name)
    layer = list(attention_maps(net))[1]
    module = net.get_submodule(layer)
    seen = []
    handle = module.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    with record_attention(net) as maps:
        output(net, x)
    tokens = seen.pop()[0]
    torchvision = isinstance(module, nn.MultiheadAttention)
    linear = (module.in_proj_weight, module.in_proj_bias) if torchvision else (module.qkv.weight, module.qkv.bias)
    expected, value = from_weights(module, tokens, *linear, 4)
    assert torch.allclose(maps[layer], expected, rtol=0, atol=1e-12)
    # Where each token looks at itself alone, what comes out is its own projected value.
    eye = torch.eye(expected.shape[-1], dtype=torch.float64).expand(1, 4, -1, -1)
    with edit_attention(net, {layer: eye}):
        output(net, x)
    out = seen.pop()[1]
    projection = module.out_proj if torchvision else module.proj
    expected = projection(value.transpose(1, 2).flatten(2))
    assert torch.allclose(out[0] if torchvision else out, expected, rtol=0, atol=1e-12)
    handle.remove()


def windowed(library):
    if library == 'mmpretrain':
        module = ShiftWindowMSA(16, 2, window_size=4, shift_size=2)
        return module, module.w_msa, lambda x: dict(query=x.flatten(1, 2), hw_shape=x.shape[1:3])
    if library == 'timm':
        module = SwinTransformerBlock(16, (8, 12), num_heads=2, window_size=4, shift_size=2)
        module.norm1 = nn.Identity()
        return module, module.attn, lambda x: dict(x=x)
    module = ShiftedWindowAttention(16, [4, 4], [2, 2], num_heads=2)
    return module, module, lambda x: dict(x=x)


@pytest.mark.parametrize('library', ['mmpretrain', 'timm', 'torchvision'])
@torch.no_grad()
def test_windows_are_put_on_the_grid(library):
    """Pairs see each other if the shifted windows of 4x4 hold both, on the same side of the wrap-around."""
    torch.manual_seed(0)
    module, attention, arguments = windowed(library)
    module.double().eval()
    nn.init.normal_(attention.relative_position_bias_table)
    height, width = 8, 12
    x = torch.randn(2, height, width, 16, dtype=torch.float64)
    with record_attention(module) as maps:
        module(**arguments(x))
    (recorded,) = maps.values()
    q, k, _ = F.linear(x.flatten(1, 2), attention.qkv.weight, attention.qkv.bias).chunk(3, -1)
    q, k = (one.unflatten(2, (2, 8)).transpose(1, 2) for one in (q, k))
    scores = q @ k.transpose(2, 3) / math.sqrt(8)  # 2, heads, 96, 96
    expected = torch.zeros_like(scores)
    row, column = (place.flatten() for place in np.indices((height, width)))
    # Windows begin at 2; what lies before is a window of its own, of which only half is in the picture.
    window = (row + 2) // 4 * 10 + (column + 2) // 4
    for i in range(height * width):
        others = np.flatnonzero(window == window[i])
        table = attention.relative_position_bias_table[
            (row[i] - row[others] + 3) * 7 + column[i] - column[others] + 3
        ]  # others, heads
        exponentials = (scores[:, :, i, others] + table.T).exp()
        expected[:, :, i, others] = exponentials / exponentials.sum(-1, keepdim=True)
    assert torch.allclose(recorded, expected, rtol=0, atol=1e-12)


def test_gradients_reach_the_weights_through_recorded_and_edited_maps():
    for name in ('ViT', 'Swin', 'torchvision ViT'):
        net, x, _ = build(name)
        output(net, x).square().mean().backward()
        plain = [parameter.grad for parameter in net.parameters()]
        net.zero_grad()
        with record_attention(net, grad=True) as maps:
            output(net, x).square().mean().backward()
        assert all(attention.grad_fn is not None for attention in maps.values())
        for parameter, expected in zip(net.parameters(), plain):
            assert (parameter.grad is None) == (expected is None)
            assert expected is None or torch.allclose(parameter.grad, expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_threads_and_copies_do_not_see_each_others_edits():
    net, x, _ = build('ViT')
    plain, results = output(net, x), {}
    with edit_attention(net, {'layers.0.attn': lambda attention: attention.flip(-1)}):
        other = threading.Thread(target=lambda: results.update(out=output(net, x)))
        other.start()
        other.join()
        edited = output(net, x)
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(output(twin, x), plain)
    assert torch.equal(results['out'], plain) and not torch.allclose(edited, plain)


@torch.no_grad()
def test_an_error_within_the_layer_switches_the_mode_off():
    net, x, _ = build('ViT')
    plain = output(net, x)
    with record_attention(net), pytest.raises(ValueError, match='too many values'):
        net.layers[0].attn(x)
    assert torch.equal(output(net, x), plain)
    assert torch.overrides._get_current_function_mode() is None


def test_compiled_transformers_are_refused():
    net, _, _ = build('ViT')
    net.compile()
    with pytest.raises(ValueError, match='compiled transformer cannot be watched'), record_attention(net):
        pass


def test_rollout_is_that_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(2, 3, 5, 5, generator=generator, dtype=torch.float64).softmax(-1) for _ in range(3)]
    for n in range(2):
        expected = np.eye(5)
        for attention in maps:
            mean = np.mean([head.numpy() for head in attention[n]], 0)
            expected = (0.5 * mean + 0.5 * np.eye(5)) @ expected
        assert np.allclose(attention_rollout(maps)[n].numpy(), expected, atol=1e-14)
