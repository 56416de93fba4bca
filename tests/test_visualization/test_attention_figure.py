import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mmresattn.models import ResidualAttentionNet
from mmresattn.models.layers import AttentionAugmentedConv, NonLocalAttention, edit_attention, record_attention
from mmresattn.visualization import (
    attention_figure,
    map_grid,
    mask_figure,
    pairwise_attention,
    record_mask_steps,
    reduce_channels,
    save_figure,
    spatial_maps,
    strongest_channels,
)
from mmresattn.visualization.attention_figure import short_name

TINY = dict(base='attention56-cifar', channels=(8, 8, 8), modules=(1, 1, 1), poolings=(1, 1, 1), t=1, bottom_units=1)


@pytest.mark.parametrize(
    ('name', 'label'),
    [('backbone.stage1.attention1.map', 'stage1.attention1'), ('branch.maps.0', 'branch.maps.0'), ('neck.map', 'neck')],
)
def test_labels_are_short(name, label):
    assert short_name(name) == label


def test_reductions():
    maps = torch.zeros(2, 3, 4, 4)
    maps[0, 1, 0, 0] = 1
    maps[1, 2, 3, 3] = 1
    maps[:, 0] = 0.9  # high, but constant
    strongest = reduce_channels(maps, 'strongest')
    assert torch.equal(strongest[:, 0], torch.stack([maps[0, 1], maps[1, 2]]))
    assert torch.equal(reduce_channels(maps), strongest)  # the default
    assert torch.allclose(reduce_channels(maps, 'mean')[0, 0, 0, 0], torch.tensor(1.9 / 3))
    assert torch.equal(reduce_channels(maps, 'max'), maps.amax(1, keepdim=True))
    with pytest.raises(ValueError, match="not 'median'"):
        reduce_channels(maps, 'median')
    values, numbers = strongest_channels(maps, 2)
    assert numbers[:, 0].tolist() == [1, 2] and torch.equal(values[1, 0], maps[1, 2])
    assert strongest_channels(maps, 9)[0].shape == (2, 3, 4, 4)
    with pytest.raises(ValueError, match='at least 1, not 0'):
        strongest_channels(maps, 0)


def test_attention_lies_where_it_is(tmp_path):
    """A map that is bright in its upper left corner gives a picture that is bright in that corner."""
    corner = torch.zeros(1, 1, 4, 4)
    corner[..., :2, :2] = 1
    figure = attention_figure([np.zeros((16, 16, 3), np.uint8)], {'backbone.stage1.attention1.map': corner}, ['one'])
    image, overlay = figure.axes[1].images
    assert image.get_array().shape == (16, 16, 3)
    shown = overlay.get_array()
    assert shown.shape == (16, 16) and shown[:6, :6].min() == 1 and shown[10:].max() == shown[:, 10:].max() == 0
    assert figure.axes[1].get_title() == 'stage1\nattention1' and figure.axes[0].get_ylabel() == 'one'
    figure.savefig(tmp_path / 'figure.pdf')


def near(rows, columns, height, width):
    """Attention (1, 1, Q, K) of every query to the one key that is nearest to it."""
    maps = torch.zeros(rows * columns, height * width)
    for query in range(rows * columns):
        row, column = divmod(query, columns)
        maps[query, min(row * height // rows, height - 1) * width + min(column * width // columns, width - 1)] = 1
    return maps[None, None]


@pytest.mark.parametrize('shape, queries, keys', [((32, 48), (8, 12), (8, 12)), ((33, 47), (9, 12), (4, 6))])
def test_a_query_looks_from_its_place(shape, queries, keys):
    maps = near(*queries, *keys)
    for row, column in [(0, 0), (shape[0] - 0.5, shape[1] - 0.5), (20, 7)]:
        looked = pairwise_attention(maps, shape, (row, column))
        assert looked.shape == (1, 1, *keys)
        cell = int(row * queries[0] / shape[0]), int(column * queries[1] / shape[1])
        expected = [min(c * k // q, k - 1) for c, k, q in zip(cell, keys, queries)]
        assert looked[0, 0].nonzero().tolist() == [expected]
    assert torch.allclose(pairwise_attention(maps, shape).flatten(2), maps.mean(2))
    with pytest.raises(ValueError, match='outside of what the network sees, 32x48'):
        pairwise_attention(near(8, 12, 8, 12), (32, 48), (32, 0))
    with pytest.raises(ValueError, match='7 positions are no grid over 32x48'):
        pairwise_attention(torch.rand(1, 1, 7, 7), (32, 48))


def test_self_attention_of_real_layers_is_placed():
    """A bright spot of the input is where keys are strong, in every layout of queries and keys."""
    torch.manual_seed(0)
    x = torch.zeros(1, 4, 17, 22)
    x[..., 12:14, 4:6] = 5.0
    layers = [NonLocalAttention(4, sub_sample=sub, mode='gaussian') for sub in (False, True)]
    for layer in layers:
        with torch.no_grad(), record_attention(layer) as maps:
            layer(x)
        ((_, looked),) = spatial_maps(layer, maps, (17, 22), (12.5, 4.5)).items()
        row, column = divmod(looked[0, 0].argmax().item(), looked.shape[3])
        assert row * 17 // looked.shape[2] in (12, 13) and column * 22 // looked.shape[3] in (4, 5)
    augmented = AttentionAugmentedConv(4, 40, 3, stride=2, padding=1, heads=2, upsilon=0.5, size=9, pool=True)
    with torch.no_grad(), record_attention(augmented) as maps:
        augmented(x)
    ((_, looked),) = spatial_maps(augmented, maps, (17, 22)).items()
    assert looked.shape == (1, 2, math.ceil(17 / 4), math.ceil(22 / 4)) and looked.dtype == torch.float32


def test_steps_of_a_mask_are_those_of_equation_3():
    torch.manual_seed(0)
    for residual in (True, False):
        net = ResidualAttentionNet(arch=TINY, attention_residual_learning=residual, out_indices=(0, 1, 2)).eval()
        x = torch.rand(1, 3, 16, 16)
        with torch.no_grad():
            plain = net(x)
            with record_mask_steps(net, ['stage1.attention1.map', 'stage2.attention1.map']) as steps:
                seen = net(x)
        assert all(torch.equal(a, b) for a, b in zip(plain, seen))
        assert list(steps) == ['stage1.attention1.map', 'stage2.attention1.map']
        for before, mask, after in steps.values():
            assert torch.allclose(after, (1 + mask) * before if residual else mask * before, atol=1e-6)
        # With a mask of ones, what comes after is twice what was before, or the same.
        ones = {'stage1.attention1.map': torch.ones_like}
        with torch.no_grad(), record_mask_steps(net) as steps, edit_attention(net, ones):
            net(x)
        before, mask, after = steps['stage1.attention1.map']
        assert (mask == 1).all() and torch.allclose(after, before * (2 if residual else 1)) and len(steps) == 3
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_networks_without_masks_are_named():
    block = nn.Sequential(NonLocalAttention(4))
    with pytest.raises(ValueError, match="has none, and \\['0.map'\\] are others"), record_mask_steps(block, ['0.map']):
        pass
    with pytest.raises(KeyError, match='No attention map named'), record_mask_steps(block, ['1.map']):
        pass


@pytest.mark.parametrize('suffix', ['png', 'svg', 'pdf'])
def test_figures_are_written_by_suffix(tmp_path, suffix):
    image = np.full((24, 32, 3), (10, 200, 30), np.uint8)
    maps = {f'backbone.stage{i}.attention1.map': torch.rand(6, 8) for i in range(1, 6)}
    figure = map_grid(image, maps, title='cat, 90 %', query=(3, 4))
    assert [axis.get_title() for axis in figure.axes[:3]] == ['cat, 90 %', 'stage1.attention1', 'stage2.attention1']
    assert [len(axis.child_axes) for axis in figure.axes] == [0, 1, 1, 1, 1, 1]  # bars; two rows of three panels
    assert len(map_grid(image, maps, columns=4).axes) == 8
    steps = {'stage1.attention1.map': [torch.rand(24, 32) * high for high in (1, 1, 3)]}
    for name, drawn in (('grid', figure), ('masks', mask_figure(image, steps))):
        path = tmp_path / 'new' / f'{name}.{suffix}'
        save_figure(drawn, path)
        content = path.read_bytes()
        assert content.lstrip()[:4] == dict(png=b'\x89PNG', svg=b'<?xm', pdf=b'%PDF')[suffix]
        if suffix == 'png':  # the bare image fills most of one of six panels, or of four
            of_image = (np.asarray(Image.open(path).convert('RGB')) == image[0, 0]).all(2)
            assert 1 / 20 < of_image.mean() < 1 / 4
        if suffix == 'svg':
            assert b'>stage1.attention1' in content.replace(b'\n', b'')  # text, not outlines
    with pytest.raises(ValueError, match='by the suffix; not grid.jpg'):
        save_figure(figure, 'grid.jpg')


def test_panels_show_the_map_itself():
    image = np.zeros((8, 8, 3), np.uint8)
    corner = torch.zeros(4, 4)
    corner[2:, 2:] = 1
    figure = map_grid(image, {'one': corner})
    shown = figure.axes[1].images[1].get_array()
    assert shown[6:, 6:].min() == 1 and shown[:3].max() == shown[:, :3].max() == 0
    before, after = torch.full((8, 8), 2.0), torch.full((8, 8), 4.0)
    panels = mask_figure(image, {'one': (before, corner, after)}).axes
    assert panels[1].images[0].get_clim() == panels[3].images[0].get_clim() == (2, 4)  # before and after compare
    assert panels[2].images[0].get_clim() == (0, 1)
