"""The attention module of Residual Attention Networks: trunk, soft mask branch and attention residual learning."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention_map import AttentionMap
from .checks import check_integers
from .norm_relu_conv import ConvSequential, norm_relu
from .residual_units import PreActBottleneck


def mixed_attention(x: Tensor) -> Tensor:
    """f1: a sigmoid for each channel and position (N, C, H, W), in (0, 1). Paper, equation 4."""
    return x.sigmoid()


def channel_attention(x: Tensor) -> Tensor:
    """f2: L2 normalisation over the channels of each position (N, C, H, W), in [-1, 1]. Paper, equation 5."""
    return F.normalize(x, dim=1, eps=max(1e-12, torch.finfo(x.dtype).tiny))  # 1e-12 is 0 in float16


def spatial_attention(x: Tensor) -> Tensor:
    """f3: a sigmoid of each feature map normalised over its positions (N, C, H, W), in (0, 1). Paper, equation 6.

    The paper leaves the standard deviation open; this one is biased with 1e-5 under the root, as in InstanceNorm.
    """
    return F.instance_norm(x).sigmoid()


# By their names in configs. Of these, ResidualAttention takes those that are 1/2 at zero.
MASK_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'mixed': mixed_attention,
    'channel': channel_attention,
    'spatial': spatial_attention,
}


def interpolate(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear interpolation of (N, C, h, w) to the height and width of ``like``, corners aligned as in the official
    layer."""
    return F.interpolate(x, like.shape[2:], mode='bilinear', align_corners=True)


class SoftMaskBranch(nn.Module):
    """Bottom-up top-down branch that gives the mask before its activation. Paper, Figure 2; official prototxt.

    Going down, each level is a 3x3 max pooling of stride 2 and ``r`` units; the lowest has ``bottom_units``. Going up,
    the map is interpolated to the size of the level above, the skip unit of that level is added and ``r`` units
    follow. At the top there is neither skip nor unit, but two 1x1 convolutions.

    With ``poolings=0`` nothing but the units of the lowest level and the two 1x1 convolutions remains: the "local
    convolutions" of the paper's table 4 with ``bottom_units=3``.

    Args:
        channels (int): Channels of input and output.
        poolings (int): Number of poolings.
        r (int): Units between neighbouring poolings. Defaults to 1.
        bottom_units (int, optional): Units at the lowest level. Defaults to ``2 * r``.
        unit (type): Residual unit. Defaults to :class:`PreActBottleneck`.
        dilation (int): Dilation of the units. Defaults to 1.
        norm_cfg (dict): Normalisation, by MMCV's registry. Defaults to ``dict(type='BN')``.
        width (int, optional): Width of the units. Defaults to the unit's own.
    """

    def __init__(
        self,
        channels: int,
        poolings: int,
        r: int = 1,
        bottom_units: int | None = None,
        unit: type[nn.Module] = PreActBottleneck,
        dilation: int = 1,
        norm_cfg: dict = dict(type='BN'),
        width: int | None = None,
    ) -> None:
        super().__init__()
        make_unit = partial(unit, channels, channels, dilation=dilation, norm_cfg=norm_cfg, width=width)

        def units(n: int) -> nn.Sequential:
            return nn.Sequential(*(make_unit() for _ in range(n)))

        levels = range(poolings - 1)  # levels between the top and the lowest one
        # The official pooling has no padding and rounds up; padding would change values, not only sizes.
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True) if poolings else nn.Identity()
        self.down = nn.ModuleList(units(r) for _ in levels)
        self.bottom = units(2 * r if bottom_units is None else bottom_units)
        self.skip = nn.ModuleList(make_unit() for _ in levels)
        self.up = nn.ModuleList(units(r) for _ in levels)
        self.linear = ConvSequential(
            # Raw sums are normalised first; the post-activation units of AttentionNeXt need no more than their ReLU.
            *([norm_relu(norm_cfg, channels)] if unit.preactivation else []),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm_relu(norm_cfg, channels),
            nn.Conv2d(channels, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        top, levels = x, []
        for down in self.down:
            x = down(self.pool(x))  # N, C, H / 2^k, W / 2^k
            levels.append(x)
        x = self.bottom(self.pool(x))
        for level, skip, up in zip(reversed(levels), reversed(self.skip), reversed(self.up)):
            x = up(interpolate(x, level) + skip(level))
        return self.linear(interpolate(x, top))  # N, C, H, W


class AttentionModule(nn.Module):
    """Attention module (paper, Figure 2): ``p`` units, trunk beside soft mask branch, their product, ``p`` units.

    With attention residual learning the output before the last units is ``(1 + M) * T`` (paper, equation 3), without
    it ``M * T`` (naive attention learning). The mask ``M`` passes the :class:`AttentionMap` ``map``.

    Args:
        channels (int): Channels of input and output.
        poolings (int): Poolings of the soft mask branch; the input must be at least ``2 ** poolings`` high and wide,
            and 2x2 for ``'spatial'``.
        p (int): Units before the split, and again after the merge. Defaults to 1.
        t (int): Units of the trunk. Defaults to 2.
        r (int): Units between neighbouring poolings of the mask. Defaults to 1.
        bottom_units (int, optional): Units at the lowest level of the mask. Defaults to ``2 * r``.
        attention (str): Activation of the mask: ``'mixed'`` (f1), ``'channel'`` (f2) or ``'spatial'`` (f3). Defaults
            to ``'mixed'``.
        attention_residual_learning (bool): Whether to add the trunk to the product. Defaults to True.
        unit (type): Residual unit. Defaults to :class:`PreActBottleneck`.
        dilation (int): Dilation of the units. Defaults to 1.
        norm_cfg (dict): Normalisation, by MMCV's registry. Defaults to ``dict(type='BN')``.
        mask_width (int, optional): Width of the units of the mask. Defaults to the unit's own.
    """

    mask_type = SoftMaskBranch

    def __init__(
        self,
        channels: int,
        poolings: int,
        p: int = 1,
        t: int = 2,
        r: int = 1,
        bottom_units: int | None = None,
        attention: str = 'mixed',
        attention_residual_learning: bool = True,
        unit: type[nn.Module] = PreActBottleneck,
        dilation: int = 1,
        norm_cfg: dict = dict(type='BN'),
        mask_width: int | None = None,
    ) -> None:
        super().__init__()
        if attention not in MASK_ACTIVATIONS:
            raise ValueError(f'attention is one of {list(MASK_ACTIVATIONS)}, not {attention!r}.')
        check_integers(0, poolings=poolings, p=p, t=t, r=r)
        if bottom_units is not None:
            check_integers(0, bottom_units=bottom_units)

        def units(n: int) -> nn.Sequential:
            return nn.Sequential(*(unit(channels, channels, dilation=dilation, norm_cfg=norm_cfg) for _ in range(n)))

        self.before = units(p)
        self.trunk = units(t)
        self.mask = self.mask_type(channels, poolings, r, bottom_units, unit, dilation, norm_cfg, mask_width)
        self.activation = MASK_ACTIVATIONS[attention]
        self.map = AttentionMap('mixed')
        self.attention_residual_learning = attention_residual_learning
        self.after = units(p)
        self.min_size = max(2**poolings, 2 if attention == 'spatial' else 1)

    def forward(self, x: Tensor) -> Tensor:
        self._check_size(x)
        x = self.before(x)  # N, C, H, W, here and below
        trunk = self.trunk(x)
        mask = self.map(self.activation(self.mask(x)))
        if self.attention_residual_learning:
            return self.after(torch.addcmul(trunk, mask, trunk))  # (1 + M) * T
        return self.after(mask * trunk)

    def _check_size(self, x: Tensor) -> None:
        if x.shape[2] < self.min_size or x.shape[3] < self.min_size:
            raise ValueError(
                f'Features of {x.shape[2]}x{x.shape[3]} are too small: this attention module needs at least '
                f'{self.min_size}x{self.min_size}. Use larger images, or an architecture with fewer poolings.'
            )
