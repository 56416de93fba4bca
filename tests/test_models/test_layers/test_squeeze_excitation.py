import pytest
import torch
from mmpretrain.models.utils import SELayer
from torch import nn

from mmresattn.models.layers import SqueezeExcitation, attention_maps, edit_attention, record_attention


@pytest.fixture
def layer():
    torch.manual_seed(0)
    layer = SqueezeExcitation(32, ratio=4).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@pytest.fixture
def x():
    return torch.randn(2, 32, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def formula(layer, x):
    w1, b1, w2, b2 = (parameter.flatten(1) if parameter.dim() > 1 else parameter for parameter in layer.parameters())
    z = x.sum((2, 3)) / (x.shape[2] * x.shape[3])
    return 1 / (1 + torch.exp(-((z @ w1.T + b1).clamp(min=0) @ w2.T + b2)))  # N, C


def test_worked_example():
    layer = SqueezeExcitation(2, squeeze_channels=1)
    layer.load_state_dict(
        {
            'conv1.conv.weight': torch.tensor([[0.5, -0.5]])[..., None, None],
            'conv1.conv.bias': torch.zeros(1),
            'conv2.conv.weight': torch.tensor([[1.0], [-1.0]])[..., None, None],
            'conv2.conv.bias': torch.zeros(2),
        }
    )
    x = torch.tensor([[[2.0, 4.0]], [[3.0, -1.0]]])[None]  # means 3 and 1
    with record_attention(layer) as maps:
        out = layer(x)
    s = torch.tensor([0.731059, 0.268941])
    assert torch.allclose(maps['map'].flatten(), s, atol=1e-6)
    assert torch.allclose(out, x * s[:, None, None], atol=1e-5)


def test_follows_its_formula(layer, x):
    assert torch.allclose(layer(x), x * formula(layer, x)[..., None, None], rtol=1e-12)
    layer.return_weight = True
    assert torch.allclose(layer(x), formula(layer, x)[..., None, None], rtol=1e-12)


def test_zero_excitation_halves(layer, x):
    nn.init.zeros_(layer.conv2.conv.weight)
    nn.init.zeros_(layer.conv2.conv.bias)
    assert torch.equal(layer(x), x / 2)


def test_the_map_is_recorded_and_edited(layer, x):
    assert {name: tap.kind for name, tap in attention_maps(layer).items()} == {'map': 'channel'}
    with record_attention(layer) as maps:
        layer(x)
    assert maps['map'].shape == (2, 32, 1, 1) and torch.allclose(maps['map'].flatten(1), formula(layer, x), rtol=1e-12)
    with edit_attention(layer, {'map': lambda weight: 1 - weight}), record_attention(layer) as maps:
        out = layer(x)
    assert torch.allclose(out, x * (1 - formula(layer, x))[..., None, None], rtol=1e-12)
    assert torch.allclose(maps['map'].flatten(1), 1 - formula(layer, x), rtol=1e-12)
    one = torch.zeros(1, 32, 1, 1)
    one[:, 3] = 2
    with edit_attention(layer, {'map': one}):
        out = layer(x)
    assert torch.equal(out[:, 3], 2 * x[:, 3]) and out.count_nonzero() == out[:, 3].numel()


def test_weights_of_mmpretrain_load_and_give_the_same(x):
    torch.manual_seed(0)
    theirs, ours = SELayer(32), SqueezeExcitation(32)
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(x.float()), theirs(x.float()))


@pytest.mark.parametrize(('channels', 'mmpretrain'), [(256, 16), (320, 24), (576, 40), (608, 40), (1056, 64)])
def test_hidden_width_is_exact_with_divisor_1(channels, mmpretrain):
    with torch.device('meta'):
        assert SqueezeExcitation(channels).conv1.conv.weight.shape == (mmpretrain, channels, 1, 1)
        assert SqueezeExcitation(channels, divisor=1).conv1.conv.weight.shape == (channels // 16, channels, 1, 1)


def test_gradients(layer, x):
    assert torch.autograd.gradcheck(layer, x[:1, :, :2, :2].clone().requires_grad_())


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(ratio=0), 'ratio is an integer of at least 1, not 0'),
        (dict(ratio=33, divisor=1), 'ratio=33 leaves nothing of 32 channels'),
        (dict(divisor=0), 'divisor'),
        (dict(squeeze_channels=0), 'squeeze_channels'),
        (dict(channels=1.5), 'channels'),
    ],
)
def test_widths_that_do_not_fit_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SqueezeExcitation(**{'channels': 32, **kwargs})
