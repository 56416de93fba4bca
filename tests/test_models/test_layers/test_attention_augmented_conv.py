import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmresattn.models.layers import AttentionAugmentedConv, edit_attention, record_attention
from mmresattn.models.layers.attention_augmented_conv import relative_logits


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def build(size=4, heads=2, upsilon=0.5, **kwargs):
    settings = dict(kernel_size=3, padding=1, heads=heads, kappa=0.5, upsilon=upsilon, min_head_keys=1, size=size)
    return AttentionAugmentedConv(6, 12, **{**settings, **kwargs}).double()


def loops(layer, x):
    """The attention of one image, as sums over heads, queries and keys. (C, H, W) -> (d_v, H, W)"""
    _, height, width = x.shape
    q, k, v = torch.einsum('oc,chw->ohw', layer.qkv.weight[:, :, 0, 0], x).split([layer.keys, layer.keys, layer.values])
    d, dv = layer.keys // layer.heads, layer.values // layer.heads
    out = torch.zeros(layer.values, height, width, dtype=x.dtype)
    for head in range(layer.heads):
        qs, ks, vs = q[head * d :][:d], k[head * d :][:d], v[head * dv :][:dv]
        for iy in range(height):
            for ix in range(width):
                query = qs[:, iy, ix] / d**0.5
                logits = torch.stack([
                    query @ ks[:, jy, jx]
                    + query @ layer.relative_width[jx - ix + width - 1]
                    + query @ layer.relative_height[jy - iy + height - 1]
                    for jy in range(height)
                    for jx in range(width)
                ])  # fmt: skip
                out[head * dv :][:dv, iy, ix] = vs.flatten(1) @ logits.softmax(0)
    return torch.einsum('oc,chw->ohw', layer.out.weight[:, :, 0, 0], out)


def test_attention_is_that_of_a_direct_loop():
    layer, x = build(), torch.randn(2, 6, 4, 4, dtype=torch.double)
    expected = torch.cat([layer.conv(x), torch.stack([loops(layer, image) for image in x])], 1)
    assert torch.allclose(layer(x), expected, atol=1e-12)


def test_relative_logits_are_those_of_a_loop():
    queries, table = torch.randn(5, 3, dtype=torch.double), torch.randn(9, 3, dtype=torch.double)
    expected = torch.tensor([[queries[i] @ table[j - i + 4] for j in range(5)] for i in range(5)])
    assert torch.allclose(relative_logits(queries, table), expected)


def test_without_values_it_is_the_plain_convolution():
    layer, x = build(upsilon=0), torch.randn(2, 6, 5, 5, dtype=torch.double)
    assert torch.equal(layer(x), F.conv2d(x, layer.conv.weight, padding=1))
    assert [name for name, _ in layer.named_parameters()] == ['conv.weight']


def test_what_is_constant_along_x_stays_so():
    """The distance in x then weighs all rows alike. A layer that mixes up positions and channels does not keep it."""
    layer = build(size=6, upsilon=1.0)
    x = torch.randn(2, 6, 6, 1, dtype=torch.double).expand(-1, -1, -1, 6)
    out = layer(x)
    assert (out - out[..., :1]).abs().max() < 1e-12 and out.std(2).min() > 1e-3


def test_at_any_size_tables_are_interpolated_and_distance_0_stays():
    layer = build(size=4)
    larger = layer._table(layer.relative_width, 7)
    assert larger.shape == (13, layer.keys // 2)
    assert torch.allclose(larger[[0, 6, 12]], layer.relative_width[[0, 3, 6]])
    assert torch.allclose(larger[::2], layer.relative_width)  # 7 distances of 13 are those of the table
    assert layer(torch.randn(1, 6, 9, 5, dtype=torch.double)).shape == (1, 12, 9, 5)


@pytest.mark.parametrize(('stride', 'pool', 'positions'), [(1, False, 64), (1, True, 16), (2, False, 16), (2, True, 4)])
def test_strides_and_pooling_average_the_input_of_the_attention(stride, pool, positions):
    layer, x = build(stride=stride, pool=pool), torch.randn(1, 6, 8, 8, dtype=torch.double)
    with record_attention(layer) as maps:
        out = layer(x)
    assert out.shape == (1, 12, 8 // stride, 8 // stride) and maps['map'].shape == (1, 2, positions, positions)
    assert torch.allclose(maps['map'].sum(-1), torch.ones(1, 2, positions, dtype=torch.double))
    pooled = x
    for _ in range((stride == 2) + pool):
        pooled = nn.AvgPool2d(3, 2, 1, count_include_pad=False)(pooled)
    attended = F.interpolate(layer.attention(pooled), out.shape[2:], mode='bilinear')
    assert torch.allclose(out[:, 6:], attended)


def test_edited_attention_on_one_key_gives_its_values_everywhere():
    layer, x = build(upsilon=1.0), torch.randn(1, 6, 4, 4, dtype=torch.double)
    one_key = torch.zeros(1, 2, 16, 16, dtype=torch.double)
    one_key[..., 5] = 1  # row 1, column 1
    with edit_attention(layer, {'map': one_key}):
        out = layer(x)
    value = F.conv2d(x, layer.qkv.weight)[:, -12:, 1, 1]
    assert torch.allclose(out, F.conv2d(value[..., None, None], layer.out.weight).expand_as(out))


@pytest.mark.parametrize(
    ('width', 'kappa', 'upsilon', 'keys', 'values'),
    [(128, 0.2, 0.1, 160, 8), (256, 0.2, 0.1, 160, 24), (512, 0.2, 0.1, 160, 48), (512, 0.25, 0.25, 160, 128)],
)
def test_widths_of_the_paper(width, kappa, upsilon, keys, values):
    layer = AttentionAugmentedConv(width, width, 3, kappa=kappa, upsilon=upsilon)
    assert (layer.keys, layer.values) == (keys, values)
    # convolution, queries with keys and values, output, and the two tables of 27 distances
    expected = 9 * width * (width - values) + width * (2 * keys + values) + values**2 + 2 * 27 * keys // 8
    assert sum(p.numel() for p in layer.parameters()) == expected


def test_gradients_reach_everything():
    layer = build()
    layer(torch.randn(2, 6, 4, 4, dtype=torch.double)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(upsilon=0.1, heads=8), '8 heads cannot share 0.1 of 12 channels'),
        (dict(upsilon=1.5), 'upsilon is from 0 to 1'),
        (dict(heads=0), 'heads is an integer of at least 1'),
        (dict(heads=1.5), 'heads is an integer'),
        (dict(size=0), 'size is an integer'),
        (dict(min_head_keys=0), 'min_head_keys is an integer'),
        (dict(kappa=-0.1), 'kappa at least 0'),
        (dict(groups=4, heads=1, upsilon=0.5), '6 of 12 channels to the convolution, which 4 groups cannot share'),
    ],
)
def test_what_does_not_fit_is_said(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


@pytest.mark.parametrize('upsilon', [0.5, 1.0])
@pytest.mark.parametrize('stride', [1, 2])
def test_pooled_attention_is_as_large_as_the_convolution(upsilon, stride):
    """Also where attention gives all channels, so that no convolution says how large."""
    layer = build(upsilon=upsilon, stride=stride, pool=True)
    size = F.conv2d(torch.zeros(1, 1, 9, 6), torch.zeros(1, 1, 3, 3), stride=stride, padding=1).shape[2:]
    x = torch.randn(2, 6, 9, 6, dtype=torch.double)
    with record_attention(layer) as maps:
        assert layer(x).shape == (2, 12, *size)
    positions = -(-size[0] // 2) * -(-size[1] // 2)
    assert maps['map'].shape[2:] == (positions, positions)  # still at half of the resolution
