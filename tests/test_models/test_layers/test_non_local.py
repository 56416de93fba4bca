from itertools import product

import pytest
import torch
from mmcv.cnn import NonLocal2d
from torch import nn

from mmresattn.models.layers import NonLocalAttention, attention_maps, checkpoint, edit_attention, record_attention

MODES = ('gaussian', 'embedded_gaussian', 'dot_product', 'concatenation')
SOFTMAX = MODES[:2]
BN = dict(type='BN')


def block(mode='embedded_gaussian', norm_cfg=None, **kwargs):
    """A block in float64 whose weights are neither zero nor one."""
    torch.manual_seed(0)
    layer = NonLocalAttention(6, mode=mode, norm_cfg=norm_cfg, **kwargs).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


@pytest.fixture
def x():
    return torch.randn(2, 6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def conv(layer, x, name):
    """1x1 convolution of rows (positions, channels) by the parameters of that name."""
    weight, bias = (parameter for key, parameter in layer.named_parameters() if key.startswith(name + '.'))
    return x @ weight.flatten(1).T + bias


def pool(rows, height, width):
    """2x2 max pooling of (height * width, channels), position by position."""
    return torch.stack(
        [
            torch.stack([rows[(2 * i + a) * width + 2 * j + b] for a, b in product((0, 1), (0, 1))]).amax(0)
            for i in range(height // 2)
            for j in range(width // 2)
        ]
    )


def formula(layer, x, pool_first):
    """Weights (N, Q, K) and sums (N, Q, C / 2) by the equations of the paper, one image at a time."""
    weights, sums = [], []
    for image in x:
        rows = image.flatten(1).T
        size = image.shape[1:]

        def keys(name, rows=rows, size=size):
            if name is None or not layer.sub_sample:
                embedded = rows if name is None else conv(layer, rows, name)
                return pool(embedded, *size) if layer.sub_sample else embedded
            return conv(layer, pool(rows, *size), name) if pool_first else pool(conv(layer, rows, name), *size)

        g = keys('g')
        if layer.mode == 'gaussian':
            f = torch.exp(rows @ keys(None).T)
            weight = f / f.sum(1, keepdim=True)
        else:
            theta, phi = conv(layer, rows, 'theta'), keys('phi')
            if layer.mode == 'embedded_gaussian':
                f = torch.exp(theta @ phi.T / (3**0.5 if layer.use_scale else 1))
                weight = f / f.sum(1, keepdim=True)
            elif layer.mode == 'dot_product':
                weight = theta @ phi.T / len(phi)
            else:
                w = layer.concat_project.conv.weight.flatten()
                pairs = [[w @ torch.cat([t, p]) for p in phi] for t in theta]
                weight = torch.stack([torch.stack(row) for row in pairs]).clamp(min=0) / len(phi)
        weights.append(weight)
        sums.append(weight @ g)
    return torch.stack(weights), torch.stack(sums)


def add(layer, x, sums):
    """z = W_z y + x."""
    y = conv(layer, sums, 'conv_out.conv')
    return x + y.transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('kwargs', [{}, dict(sub_sample=True), dict(sub_sample=True, pool_first=True)])
def test_follows_its_formula(mode, kwargs, x):
    layer = block(mode, **kwargs)
    weights, sums = formula(layer, x, kwargs.get('pool_first'))
    expected = add(layer, x, sums)
    assert torch.allclose(layer(x), expected, rtol=1e-9, atol=1e-11)
    with record_attention(layer) as maps:
        watched = layer(x)
    assert torch.allclose(watched, expected, rtol=1e-9, atol=1e-11)
    assert maps['map'].shape == (2, 1, 20, 4 if kwargs else 20)
    assert torch.allclose(maps['map'][:, 0], weights, rtol=1e-9, atol=1e-11)
    assert attention_maps(layer)['map'].kind == 'pairwise'


def test_the_scale_is_optional(x):
    layer = block(use_scale=False)
    assert torch.allclose(layer(x), add(layer, x, formula(layer, x, False)[1]), rtol=1e-9)
    assert not torch.allclose(layer(x), block()(x))


@pytest.mark.parametrize(
    ('kwargs', 'y'),
    [
        (dict(mode='gaussian'), (0.731059, 0.268941)),
        (dict(mode='embedded_gaussian', use_scale=False), (0.731059, 0.268941)),
        (dict(mode='embedded_gaussian'), (0.669762, 0.330238)),
        (dict(mode='dot_product'), (0.5, 0.0)),
    ],
)
def test_worked_example(kwargs, y):
    layer = NonLocalAttention(2, reduction=1, **kwargs)
    for name, module in layer.named_modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.copy_(torch.eye(2)[..., None, None])
            assert not module.bias.any(), name
    x = torch.eye(2).view(1, 2, 1, 2)  # positions (1, 0) and (0, 1)
    with record_attention(layer) as maps:
        watched = layer(x)
    for out in (layer(x), watched):
        assert torch.allclose((out - x)[0, :, 0, 0], torch.tensor(y), atol=1e-6)
    assert torch.allclose(maps['map'][0, 0, 0], torch.tensor(y), atol=1e-6)


@pytest.mark.parametrize('mode', SOFTMAX)
def test_watched_and_unwatched_agree_in_float32_also_in_gradients(mode):
    layer, images = block(mode, sub_sample=True).float(), torch.randn(2, 6, 9, 8)
    results = []
    for watched in (False, True):
        x = images.clone().requires_grad_()
        layer.zero_grad()
        if watched:
            with record_attention(layer):
                out = layer(x)
        else:
            out = layer(x)
        out.square().mean().backward()
        results.append([out, x.grad, *(parameter.grad for parameter in layer.parameters())])
    for unwatched, watched in zip(*results):
        assert torch.allclose(unwatched, watched, atol=1e-5)


@pytest.mark.parametrize('mode', SOFTMAX)
def test_unwatched_softmax_modes_form_no_map(mode, monkeypatch):
    """Nothing calls the method that forms the weights unless they are watched, in either pass of checkpointing too."""
    layer, called = block(mode), []
    original = getattr(layer, mode)
    monkeypatch.setattr(layer, mode, lambda *args: called.append(1) or original(*args), raising=False)
    x = torch.randn(1, 6, 3, 3, dtype=torch.float64)
    layer(x)
    assert not called
    with record_attention(layer):
        layer(x)
    assert len(called) == 1
    checkpoint(layer, x.requires_grad_()).sum().backward()
    assert len(called) == 1
    with edit_attention(layer, {'map': torch.ones_like}):
        out = checkpoint(layer, x)
    out.sum().backward()
    assert len(called) == 3  # both passes, though the context has closed


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('norm_cfg', [None, BN])
@pytest.mark.parametrize('official', [False, True])
def test_identity_at_start_and_after_another_initialisation(mode, norm_cfg, official, x):
    official = dict(sub_sample=True, pool_first=True, out_bias=True) if official else {}
    layer = NonLocalAttention(6, mode=mode, norm_cfg=norm_cfg, **official).double()
    assert torch.equal(layer(x), x)
    for parameter in layer.parameters():
        nn.init.ones_(parameter)
    layer.init_weights()
    assert torch.equal(layer(x), x)
    assert 0.001 < layer.g.get_parameter('0.conv.weight' if official else 'conv.weight').std() < 0.02


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('norm_cfg', [None, BN])
@pytest.mark.parametrize('sub_sample', [False, True])
def test_weights_of_mmcv_load_and_give_the_same(mode, norm_cfg, sub_sample, x):
    torch.manual_seed(0)
    theirs = NonLocal2d(6, mode=mode, norm_cfg=norm_cfg, sub_sample=sub_sample).double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    ours = NonLocalAttention(6, mode=mode, norm_cfg=norm_cfg, sub_sample=sub_sample).double().eval()
    ours.load_state_dict(theirs.state_dict())
    assert torch.allclose(ours(x), theirs(x), rtol=1e-9, atol=1e-11)
    # The order of pooling and convolution changes no name.
    NonLocalAttention(6, mode=mode, norm_cfg=norm_cfg, sub_sample=sub_sample, pool_first=True).load_state_dict(
        theirs.state_dict()
    )


@pytest.mark.parametrize(
    ('channels', 'with_biases'), [(256, 132_224), (512, 526_592), (1024, 2_101_760), (2048, 8_397_824)]
)
def test_official_numbers(channels, with_biases):
    with torch.device('meta'):
        official = NonLocalAttention(channels, sub_sample=True, pool_first=True, out_bias=True, norm_cfg=BN)
        plain = NonLocalAttention(channels, sub_sample=True, norm_cfg=BN)
    assert sum(p.numel() for p in official.parameters()) == with_biases
    assert sum(p.numel() for p in plain.parameters()) == with_biases - channels


@pytest.mark.parametrize('mode', MODES)
def test_an_edited_map_gives_what_it_says(mode, x):
    layer = block(mode)
    look_at = torch.zeros(1, 1, 20, 20)
    look_at[..., 7] = 1  # every position takes g of position 7
    with edit_attention(layer, {'map': look_at}):
        out = layer(x)
    g = conv(layer, x.flatten(2).transpose(1, 2), 'g')[:, 7:8].expand(-1, 20, -1)
    assert torch.allclose(out, add(layer, x, g), rtol=1e-9)
    with edit_attention(layer, {'map': lambda weight: weight / 2}), record_attention(layer) as maps:
        out = layer(x)
    weights, sums = formula(layer, x, False)
    assert torch.allclose(out, add(layer, x, sums / 2), rtol=1e-9)
    assert torch.allclose(maps['map'][:, 0], weights / 2, rtol=1e-9)


@pytest.mark.parametrize(('sub_sample', 'mebibytes'), [(False, 37.515625), (True, 9.37890625)])
def test_memory_that_the_documentation_states(sub_sample, mebibytes):
    with torch.device('meta'):
        layer, x = NonLocalAttention(256, sub_sample=sub_sample), torch.empty(1, 256, 56, 56)
    with record_attention(layer) as maps:
        layer(x)
    assert maps['map'].nbytes / 2**20 == mebibytes


def test_compiles_without_a_graph_break(x):
    layer = block(sub_sample=True, norm_cfg=BN)
    compiled = torch.compile(layer, backend='eager', fullgraph=True)
    assert torch.allclose(compiled(x), layer(x), rtol=1e-9)
    with record_attention(layer) as maps:
        compiled(x)
    assert maps['map'].shape == (2, 1, 20, 4)


def test_unknown_mode_is_named():
    with pytest.raises(ValueError, match='embedded_gaussian.*cosine'):
        NonLocalAttention(4, mode='cosine')


def test_pooling_of_a_single_position_and_reduction_to_nothing_are_named():
    layer = block(sub_sample=True)
    assert layer(torch.zeros(1, 6, 2, 2).double()).shape == (1, 6, 2, 2)
    with pytest.raises(ValueError, match='Features of 1x3 are too small: with sub_sample .*2x2'):
        layer(torch.zeros(1, 6, 1, 3).double())
    for reduction in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f'reduction is an integer of at least 1, not {reduction}'):
            NonLocalAttention(6, reduction=reduction)
