import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmresattn.models.layers import UNITS, PreActBottleneck, ResNeXtUnit


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


@pytest.mark.parametrize(('unit', 'channels'), [('preact', 18), ('resnext', 96)])
def test_channels_that_do_not_divide(unit, channels):
    with pytest.raises(ValueError, match=rf'multiple of \d+ channels; {channels}'):
        UNITS[unit](16, channels)
