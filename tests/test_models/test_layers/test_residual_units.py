import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmresattn.models.layers import UNITS, BasicUnit, BottleneckUnit, InceptionUnit, PreActBottleneck, ResNeXtUnit


def norm(x, bn):
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)


def randomise(module):
    """Weights, statistics and biases that are neither zero nor one, in float64."""
    torch.manual_seed(0)
    for bn in module.modules():
        if isinstance(bn, nn.BatchNorm2d):
            nn.init.normal_(bn.running_mean)
            nn.init.uniform_(bn.running_var, 0.5, 2)
            nn.init.normal_(bn.weight, 1)
            nn.init.normal_(bn.bias)
    return module.double().eval()


@pytest.mark.parametrize(('channels', 'stride', 'dilation'), [(16, 1, 1), (32, 2, 1), (32, 1, 2)])
def test_preact_follows_its_formula(channels, stride, dilation):
    unit = randomise(PreActBottleneck(16, channels, stride, dilation, projection=channels != 16))
    x = torch.randn(2, 16, 9, 8, dtype=torch.float64)
    h = norm(x, unit.norm1[0]).relu()
    y = F.conv2d(h, unit.conv1.weight)
    y = F.conv2d(norm(y, unit.norm2[0]).relu(), unit.conv2.weight, None, stride, dilation, dilation)
    y = F.conv2d(norm(y, unit.norm3[0]).relu(), unit.conv3.weight)
    # The shortcut is raw where it is the identity, and activated where it is projected.
    shortcut = x if channels == 16 else F.conv2d(h, unit.shortcut.weight, None, stride)
    assert torch.allclose(unit(x), y + shortcut, rtol=1e-12)


@pytest.mark.parametrize(('channels', 'stride'), [(64, 1), (128, 2)])
def test_resnext_follows_its_formula(channels, stride):
    unit = randomise(ResNeXtUnit(64, channels, stride, projection=channels != 64))
    x = torch.randn(2, 64, 9, 8, dtype=torch.float64)
    y = norm(F.conv2d(x, unit.conv1.weight), unit.bn1).relu()
    y = norm(F.conv2d(y, unit.conv2.weight, None, stride, 1, groups=32), unit.bn2).relu()
    y = norm(F.conv2d(y, unit.conv3.weight), unit.bn3)
    shortcut = x
    if channels != 64:
        shortcut = norm(F.conv2d(x, unit.downsample[0].weight, None, stride), unit.downsample[1])
    assert unit.conv2.weight.shape == (channels // 2, channels // 64, 3, 3)  # 32x4d at 256 channels
    assert torch.allclose(unit(x), (y + shortcut).relu(), rtol=1e-12)


@pytest.mark.parametrize(
    ('channels', 'stride', 'dilation', 'width'), [(16, 1, 1, None), (32, 2, 1, None), (32, 1, 2, 7), (16, 2, 2, 48)]
)
def test_post_activation_units_follow_their_formulas(channels, stride, dilation, width):
    x = torch.randn(2, 16, 9, 8, dtype=torch.float64)
    projection = channels != 16 or stride != 1

    def ends(unit, y):
        shortcut = x
        if projection:
            shortcut = norm(F.conv2d(x, unit.downsample[0].weight, None, stride), unit.downsample[1])
        return (y + shortcut).relu()

    unit = randomise(BottleneckUnit(16, channels, stride, dilation, projection, width=width))
    y = norm(F.conv2d(x, unit.conv1.weight), unit.bn1).relu()
    y = norm(F.conv2d(y, unit.conv2.weight, None, stride, dilation, dilation), unit.bn2).relu()
    y = norm(F.conv2d(y, unit.conv3.weight), unit.bn3)
    assert unit.conv2.weight.shape == (width or channels // 4,) * 2 + (3, 3)
    assert torch.allclose(unit(x), ends(unit, y), rtol=1e-12)

    unit = randomise(BasicUnit(16, channels, stride, dilation, projection, width=width))
    y = norm(F.conv2d(x, unit.conv1.weight, None, stride, dilation, dilation), unit.bn1).relu()
    y = norm(F.conv2d(y, unit.conv2.weight, None, 1, 1), unit.bn2)
    assert unit.conv1.out_channels == (width or channels)
    assert torch.allclose(unit(x), ends(unit, y), rtol=1e-12)


@pytest.mark.parametrize(
    ('channels', 'stride', 'dilation', 'width'), [(16, 1, 1, None), (32, 2, 1, None), (32, 1, 2, 12), (48, 2, 2, 4)]
)
def test_inception_follows_its_formula(channels, stride, dilation, width):
    unit = randomise(InceptionUnit(16, channels, stride, dilation, projection=channels != 16, width=width))
    state = unit.state_dict()
    x = torch.randn(2, 16, 9, 8, dtype=torch.float64)

    def norm_relu(x, name):
        mean, var, weight, bias = (
            state[f'{name}.0.{key}'][:, None, None] for key in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)

    def conv1x1(x, name, stride=1):
        return torch.einsum('nihw,oi->nohw', x[..., ::stride, ::stride], state[f'{name}.weight'][..., 0, 0])

    def conv3x3(x, name, stride=1):
        return F.conv2d(x, state[f'{name}.weight'], None, stride, dilation, dilation)

    h = norm_relu(x, 'norm1')
    a = conv1x1(h, 'branch1', stride)
    b = conv3x3(norm_relu(conv1x1(h, 'branch2.0'), 'branch2.1'), 'branch2.2', stride)
    c = conv3x3(norm_relu(conv1x1(h, 'branch3.0'), 'branch3.1'), 'branch3.2', stride)
    c = conv3x3(norm_relu(c, 'branch3.3'), 'branch3.4')
    y = conv1x1(norm_relu(torch.cat([a, b, c], 1), 'norm2'), 'conv2')
    width = width or channels // 4
    assert [branch.shape[1] for branch in (a, b, c)] == [width // 4, width // 2, width // 2]
    shortcut = x if channels == 16 else conv1x1(h, 'shortcut', stride)
    assert unit(x).shape == (2, channels, -(-9 // stride), 8 // stride)
    assert torch.allclose(unit(x), y + shortcut, rtol=1e-12, atol=1e-12)
    assert not unit.load_state_dict(state).missing_keys


@pytest.mark.parametrize(('channels', 'expected'), [(256, 69_472), (2048, 4_397_824)])
def test_inception_costs_what_the_bottleneck_does(channels, expected):
    """Within 2 %, and by its own formula: 1x1 convolutions around 5/16 of the channels, three 3x3 of an eighth."""
    with torch.device('meta'):
        parameters, bottleneck = (
            sum(p.numel() for p in unit(channels, channels).parameters()) for unit in (InceptionUnit, PreActBottleneck)
        )
    joined, eighth = 5 * channels // 16, channels // 8
    assert parameters == 2 * channels * joined + 27 * eighth**2 + 2 * (channels + 3 * eighth + joined) == expected
    assert parameters == pytest.approx(bottleneck, rel=0.02)


@pytest.mark.parametrize(
    ('unit', 'width', 'names'),
    [
        ('preact', 5, ['conv2']),
        ('bottleneck', 5, ['conv2']),
        ('basic', 5, ['conv1']),
        ('resnext', 96, ['conv2']),
        ('inception', 8, ['branch2.2', 'branch3.2', 'branch3.4']),
    ],
)
def test_width_is_that_of_the_middle(unit, width, names):
    torch.manual_seed(0)
    unit = UNITS[unit](64, 64, width=width)
    convs = [unit.get_submodule(name) for name in names]
    assert {conv.out_channels for conv in convs} == {width // 2 if len(names) > 1 else width}
    assert unit(torch.randn(2, 64, 5, 5)).shape == (2, 64, 5, 5)


@pytest.mark.parametrize(
    ('unit', 'width', 'step'), [('preact', 0, 1), ('basic', 0, 1), ('resnext', 48, 32), ('inception', 6, 4)]
)
def test_widths_that_do_not_fit(unit, width, step):
    with pytest.raises(ValueError, match=rf'width of a {unit} unit is a positive multiple of {step}, not {width}'):
        UNITS[unit](64, 64, width=width)


@pytest.mark.parametrize(('unit', 'channels'), [('preact', 18), ('bottleneck', 18), ('resnext', 96), ('inception', 24)])
def test_channels_that_do_not_divide(unit, channels):
    with pytest.raises(ValueError, match=rf'multiple of \d+ channels; {channels}'):
        UNITS[unit](16, channels)


@pytest.mark.parametrize('unit', UNITS)
def test_numbers_of_channels_are_integers(unit):
    for wrong in (0, -64, 64.0):
        with pytest.raises(ValueError, match='out_channels is an integer of at least 1'):
            UNITS[unit](64, wrong)
        with pytest.raises(ValueError, match=f'width of a {unit} unit is a positive multiple'):
            UNITS[unit](64, 64, width=wrong)


@pytest.mark.parametrize('channels', [2, 6])
def test_resnext_channels_that_mmpretrain_cannot_quarter(channels):
    with pytest.raises(ValueError, match=f'multiple of 4 channels; {channels} is none'):
        ResNeXtUnit(4, channels, width=32)
