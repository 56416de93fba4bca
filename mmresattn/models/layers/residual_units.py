"""Residual units: the bricks of the trunk and of the soft mask branch.

Every unit says in ``preactivation`` whether its output is a raw sum, which the next layer must normalise, or is already
activated. All of them take the same arguments:

- ``in_channels``, ``out_channels`` (int): Channels of the input and of the output.
- ``stride`` (int): Stride. Defaults to 1.
- ``dilation`` (int): Dilation of the 3x3 convolutions. Defaults to 1.
- ``projection`` (bool): Whether the shortcut is a projection, as it must be where the shape changes. Defaults to False.
- ``norm_cfg`` (dict): Normalisation, by MMCV's registry. Defaults to ``dict(type='BN')``.
- ``width`` (int, optional): Channels in the middle of the unit. Each class states its default, and of what
  ``out_channels`` and ``width`` are multiples; they raise a ValueError if they are not.
"""

from fractions import Fraction
from numbers import Integral

import torch
from mmcv.cnn import build_norm_layer
from mmpretrain.models.backbones.resnet import BasicBlock, Bottleneck
from mmpretrain.models.backbones.resnext import Bottleneck as ResNeXtBottleneck
from torch import Tensor, nn

from .checks import check_integers
from .norm_relu_conv import ConvSequential, norm_relu, norm_relu_convs


def _mid_width(unit: str, channels: int, part: int, step: int, width: int | None) -> int:
    """Width of the middle of a unit, a multiple of ``step``: that which is asked for, or ``channels / part``."""
    check_integers(out_channels=channels)
    if width is None:
        if channels % (part * step):
            raise ValueError(f'A {unit} unit gives a multiple of {part * step} channels; {channels} is none.')
        return channels // part
    if not isinstance(width, Integral) or width < 1 or width % step:
        raise ValueError(f'The width of a {unit} unit is a positive multiple of {step}, not {width!r}.')
    return width


class PreActBottleneck(nn.Module):
    """Pre-activation bottleneck (He et al., 2016), the unit of Attention-56 and Attention-92.

    The stride sits on the 3x3 convolution. A projection shortcut is a 1x1 convolution of the *activated* input, as in
    the official network; the identity shortcut is the raw input.

    ``width`` is by default ``out_channels / 4``, and ``out_channels`` then a multiple of 4.
    """

    preactivation = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        dilation: int = 1,
        projection: bool = False,
        norm_cfg: dict = dict(type='BN'),
        width: int | None = None,
    ) -> None:
        super().__init__()
        width = _mid_width('preact', out_channels, 4, 1, width)
        self.norm1 = norm_relu(norm_cfg, in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm2 = norm_relu(norm_cfg, width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.norm3 = norm_relu(norm_cfg, width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if projection else None

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            shortcut, (h,) = x, norm_relu_convs(self.norm1, x, self.conv1)
        else:
            shortcut, h = norm_relu_convs(self.norm1, x, self.shortcut, self.conv1)
        (h,) = norm_relu_convs(self.norm2, h, self.conv2)
        (h,) = norm_relu_convs(self.norm3, h, self.conv3)
        return h + shortcut


class _PostActivation:
    """Mixin for blocks of MMPretrain: the arguments of a unit, and the projection shortcut built in.

    ``_widths(out_channels, width)`` checks both, and gives the arguments by which MMPretrain knows the width.
    """

    preactivation = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        dilation: int = 1,
        projection: bool = False,
        norm_cfg: dict = dict(type='BN'),
        width: int | None = None,
    ) -> None:
        widths = self._widths(out_channels, width)
        shortcut = None
        if projection:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            shortcut = nn.Sequential(conv, build_norm_layer(norm_cfg, out_channels)[1])
        super().__init__(
            in_channels,
            out_channels,
            stride=stride,
            dilation=dilation,
            downsample=shortcut,
            norm_cfg=norm_cfg,
            **widths,
        )


class BottleneckUnit(_PostActivation, Bottleneck):
    """Post-activation bottleneck of ResNet-50, -101 and -152 (He et al., CVPR 2016).

    It is MMPretrain's block, with the stride on the 3x3 convolution and the projection shortcut built in, so that
    weights of these networks load under their own names.

    ``width`` is by default ``out_channels / 4``, and ``out_channels`` then a multiple of 4.
    """

    def _widths(self, out_channels: int, width: int | None) -> dict:
        width = _mid_width('bottleneck', out_channels, 4, 1, width)
        return dict(expansion=Fraction(out_channels, width))  # MMPretrain divides by it; any width comes out exactly


class BasicUnit(_PostActivation, BasicBlock):
    """Post-activation basic block of ResNet-18 and -34 (He et al., CVPR 2016): two 3x3 convolutions.

    It is MMPretrain's block with its projection shortcut built in, so that weights of these networks load under their
    own names. As there, the first convolution alone has the stride and the dilation.

    ``width``, the channels between the convolutions, is by default ``out_channels``.
    """

    def __init__(self, *args, width: int | None = None, **kwargs) -> None:
        super().__init__(*args, width=width, **kwargs)
        if width not in (None, self.out_channels):  # MMPretrain's block has no width of its own
            same = dict(padding=self.dilation, dilation=self.dilation, bias=False)
            self.conv1 = nn.Conv2d(self.in_channels, width, 3, self.stride, **same)
            self.add_module(self.norm1_name, build_norm_layer(self.norm_cfg, width)[1])
            self.conv2 = nn.Conv2d(width, self.out_channels, 3, padding=1, bias=False)

    def _widths(self, out_channels: int, width: int | None) -> dict:
        _mid_width('basic', out_channels, 1, 1, width)
        return {}


class ResNeXtUnit(_PostActivation, ResNeXtBottleneck):
    """Post-activation ResNeXt 32x4d unit, the unit of AttentionNeXt.

    It is MMPretrain's ResNeXt bottleneck with its projection shortcut built in.

    ``width``, the channels that the 32 groups share, is a multiple of 32, by default ``out_channels / 2``;
    ``out_channels`` is a multiple of 64 by default, and of 4 otherwise.
    """

    def _widths(self, out_channels: int, width: int | None) -> dict:
        width = _mid_width('resnext', out_channels, 2, 32, width)
        if out_channels % 4:  # which MMPretrain's bottleneck divides by 4
            raise ValueError(f'A resnext unit gives a multiple of 4 channels; {out_channels} is none.')
        # A width of 4 a group at 256 channels, as MMPretrain would count for whole templates only
        return dict(base_channels=out_channels // 4, groups=32, width_per_group=width // 32)


class InceptionUnit(nn.Module):
    """Pre-activation Inception unit, our reading of the unit of AttentionInception-56.

    The paper says no more than that the unit is a simplified Inception: neither its branches nor their widths are
    known. This one is the pre-activation bottleneck with the branches of Inception-ResNet-A (Szegedy et al., 2017) in
    the place of its 3x3 convolution, as wide as keeps the cost of that bottleneck: of ``width`` channels, a 1x1
    convolution has a quarter, 1x1-3x3 a half and 1x1-3x3-3x3 a half; they are joined, normalised and mixed by a 1x1
    convolution. It counts as three layers, as the bottleneck does.

    The stride sits on the first 3x3 convolution of a branch, and on the 1x1 convolution of the one that has none. The
    shortcut is that of :class:`PreActBottleneck`.

    ``width``, what the branches share as above, is a multiple of 4, by default ``out_channels / 4``; ``out_channels``
    is then a multiple of 16.
    """

    preactivation = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        dilation: int = 1,
        projection: bool = False,
        norm_cfg: dict = dict(type='BN'),
        width: int | None = None,
    ) -> None:
        super().__init__()
        width = _mid_width('inception', out_channels, 4, 4, width)
        quarter, half = width // 4, width // 2

        def conv1x1(out: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(in_channels, out, 1, stride, bias=False)

        def norm_conv3x3(stride: int = 1) -> tuple[nn.Module, nn.Module]:
            conv = nn.Conv2d(half, half, 3, stride, padding=dilation, dilation=dilation, bias=False)
            return norm_relu(norm_cfg, half), conv

        self.norm1 = norm_relu(norm_cfg, in_channels)
        self.branch1 = conv1x1(quarter, stride)
        self.branch2 = ConvSequential(conv1x1(half), *norm_conv3x3(stride))
        self.branch3 = ConvSequential(conv1x1(half), *norm_conv3x3(stride), *norm_conv3x3())
        self.norm2 = norm_relu(norm_cfg, quarter + half + half)
        self.conv2 = nn.Conv2d(quarter + half + half, out_channels, 1, bias=False)
        self.shortcut = conv1x1(out_channels, stride) if projection else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        shortcut = x if self.shortcut is None else self.shortcut(h)
        h = torch.cat([self.branch1(h), self.branch2(h), self.branch3(h)], 1)  # N, 5/4 width, H / stride, W / stride
        (h,) = norm_relu_convs(self.norm2, h, self.conv2)
        return h + shortcut


UNITS: dict[str, type[nn.Module]] = {
    'preact': PreActBottleneck,
    'bottleneck': BottleneckUnit,
    'basic': BasicUnit,
    'resnext': ResNeXtUnit,
    'inception': InceptionUnit,
}
