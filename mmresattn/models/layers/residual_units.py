"""Residual units: the bricks of the trunk and of the soft mask branch.

Every unit is built as ``Unit(in_channels, out_channels, stride, dilation, projection, norm_cfg)`` and says in
``preactivation`` whether its output is a raw sum (which the next layer must normalise) or is already activated.
"""

from mmcv.cnn import build_norm_layer
from mmpretrain.models.backbones.resnext import Bottleneck
from torch import Tensor, nn


def norm_relu(norm_cfg: dict, channels: int) -> nn.Sequential:
    """Normalisation and ReLU, the BR of the official network."""
    return nn.Sequential(build_norm_layer(norm_cfg, channels)[1], nn.ReLU(inplace=True))


def _check_channels(unit: str, channels: int, divisor: int) -> None:
    if channels % divisor:
        raise ValueError(f'A {unit} unit gives a multiple of {divisor} channels; {channels} is none.')


class PreActBottleneck(nn.Module):
    """Pre-activation bottleneck (He et al., 2016), the unit of Attention-56 and Attention-92.

    The stride sits on the 3x3 convolution. A projection shortcut is a 1x1 convolution of the *activated* input, as in
    the official network; the identity shortcut is the raw input.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, a multiple of 4; the bottleneck has a quarter of them.
        stride (int): Stride. Defaults to 1.
        dilation (int): Dilation of the 3x3 convolution. Defaults to 1.
        projection (bool): Whether the shortcut is a projection, as it must be where the shape changes. Defaults to
            False.
        norm_cfg (dict): Normalisation, by MMCV's registry. Defaults to ``dict(type='BN')``.

    Raises:
        ValueError: If ``out_channels`` is no multiple of 4.
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
    ) -> None:
        super().__init__()
        _check_channels('preact', out_channels, 4)
        width = out_channels // 4
        self.norm1 = norm_relu(norm_cfg, in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm2 = norm_relu(norm_cfg, width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.norm3 = norm_relu(norm_cfg, width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.shortcut = None
        if projection:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        shortcut = x if self.shortcut is None else self.shortcut(h)
        h = self.conv1(h)
        h = self.conv2(self.norm2(h))
        h = self.conv3(self.norm3(h))
        return h + shortcut


class ResNeXtUnit(Bottleneck):
    """Post-activation ResNeXt 32x4d unit, the unit of AttentionNeXt.

    It is MMPretrain's ResNeXt bottleneck with its projection shortcut built in.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, a multiple of 64; the 32 groups share half of them.
        stride (int): Stride of the grouped 3x3 convolution. Defaults to 1.
        dilation (int): Dilation of the grouped 3x3 convolution. Defaults to 1.
        projection (bool): Whether the shortcut is a projection, as it must be where the shape changes. Defaults to
            False.
        norm_cfg (dict): Normalisation, by MMCV's registry. Defaults to ``dict(type='BN')``.

    Raises:
        ValueError: If ``out_channels`` is no multiple of 64.
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
    ) -> None:
        _check_channels('resnext', out_channels, 64)
        downsample = None
        if projection:
            downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                build_norm_layer(norm_cfg, out_channels)[1],
            )
        super().__init__(
            in_channels,
            out_channels,
            base_channels=out_channels // 4,
            groups=32,
            width_per_group=out_channels // 64,  # 4 at 256 channels, as MMPretrain would count for whole templates only
            stride=stride,
            dilation=dilation,
            downsample=downsample,
            norm_cfg=norm_cfg,
        )


UNITS: dict[str, type[nn.Module]] = {'preact': PreActBottleneck, 'resnext': ResNeXtUnit}
