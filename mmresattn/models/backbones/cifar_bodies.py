"""Networks for 32x32 images on which the Attention Branch Network was tried, and which MMPretrain lacks.

They are three stages each. ResNet and ResNeXt are MMPretrain's with other numbers of blocks; Wide ResNet (Zagoruyko and
Komodakis, arXiv:1605.07146) and DenseNet-BC (Huang et al., arXiv:1608.06993) are built of its blocks where it has them.
"""

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmpretrain.models.backbones import ResNet_CIFAR, ResNeXt
from mmpretrain.models.backbones.densenet import DenseBlock, DenseTransition
from mmpretrain.models.backbones.resnet import BasicBlock, Bottleneck
from mmpretrain.models.backbones.resnext import Bottleneck as GroupedBottleneck
from torch import Tensor, nn

from ..layers import norm_relu
from ..layers.checks import check_each_stage, check_frozen_stages, check_images, check_integers, stage_indices
from .attention_places import AttentionPlaces, resolve_attention
from .stages import INIT_CFG, LayerDepth, MendedResNet, Staged


def _blocks(name: str, depth: int, step: int, rest: int) -> int:
    """Blocks of each of the three stages of a network of ``step * blocks + rest`` layers."""
    if not isinstance(depth, int) or depth <= rest or (depth - rest) % step:
        raise ValueError(f'The depth of a {name} is {step}n + {rest} with n of at least 1, not {depth}.')
    return (depth - rest) // step


class _ThreeStages(MendedResNet):
    """MMPretrain's ``ResNet_CIFAR`` of three stages, with the checks of arguments that it lacks."""

    def __init__(
        self,
        depth: int,
        num_stages: int = 3,
        strides: Sequence[int] = (1, 2, 2),
        dilations: Sequence[int] = (1, 1, 1),
        out_indices: int | Sequence[int] = (2,),
        zero_init_residual: bool = False,
        frozen_stages: int = -1,
        in_channels: int = 3,
        **kwargs,
    ) -> None:
        check_each_stage(num_stages, strides=strides, dilations=dilations)
        check_frozen_stages(frozen_stages, num_stages)
        check_integers(in_channels=in_channels)
        super().__init__(
            depth,
            num_stages=num_stages,
            strides=strides,
            dilations=dilations,
            out_indices=stage_indices(out_indices, num_stages),
            zero_init_residual=zero_init_residual,
            frozen_stages=frozen_stages,
            in_channels=in_channels,
            **kwargs,
        )
        self.in_channels = in_channels


@MODELS.register_module()
class CIFARResNet(_ThreeStages, ResNet_CIFAR):
    """ResNet of three stages (He et al., 2016, section 4.2) as in the code of the Attention Branch Network.

    From depth 44 on its blocks are bottlenecks, though the depth is still counted as if they had two layers:
    "ResNet-110" has 18 bottlenecks a stage, that is 164 layers.

    Args:
        depth (int): ``6n + 2``: 20, 32, 44, 56, 110 and so on.
        stem_channels (int): Channels of the stem. Defaults to 16.
        base_channels (int): Width of the first stage's blocks, doubled in each next one. Defaults to 16.
        **kwargs: ``num_stages`` (3, all of them), ``strides`` (1, 2, 2) and ``dilations`` (1, 1, 1) of each stage,
            ``out_indices`` (the last stage), ``zero_init_residual`` (False: whether the last normalisation of each
            block starts at 0) and others of MMPretrain's ``ResNet_CIFAR``.

    Raises:
        ValueError: If there is no network of this depth.
    """

    def __init__(self, depth: int, stem_channels: int = 16, base_channels: int = 16, **kwargs) -> None:
        n = _blocks('CIFARResNet', depth, 6, 2)
        check_integers(stem_channels=stem_channels, base_channels=base_channels)
        self.arch_settings = {depth: (Bottleneck if depth >= 44 else BasicBlock, (n, n, n))}
        super().__init__(depth, stem_channels=stem_channels, base_channels=base_channels, **kwargs)


@MODELS.register_module()
class CIFARResNeXt(_ThreeStages, ResNeXt, ResNet_CIFAR):
    """ResNeXt of three stages (Xie et al., arXiv:1611.05431, section 5.3): 256, 512 and 1024 channels.

    Args:
        depth (int): ``9n + 2``. Defaults to 29.
        groups (int): Groups of the 3x3 convolutions. Defaults to 8.
        width_per_group (int): Their width in the first stage. Defaults to 64.
        **kwargs: ``num_stages`` (3, all of them), ``strides`` (1, 2, 2) and ``dilations`` (1, 1, 1) of each stage,
            ``out_indices`` (the last stage), ``zero_init_residual`` (False: whether the last normalisation of each
            block starts at 0) and others of MMPretrain's ``ResNet_CIFAR``.

    Raises:
        ValueError: If there is no network of this depth.
    """

    def __init__(self, depth: int = 29, groups: int = 8, width_per_group: int = 64, **kwargs) -> None:
        n = _blocks('CIFARResNeXt', depth, 9, 2)
        check_integers(groups=groups, width_per_group=width_per_group)
        self.arch_settings = {depth: (GroupedBottleneck, (n, n, n))}
        super().__init__(depth, groups=groups, width_per_group=width_per_group, **kwargs)


class _PreActNet(LayerDepth, Staged, BaseModule):
    """A convolution, then ``stage1`` to ``stage3``; the last one is followed by ``norm``, a normalisation and a ReLU.

    Subclasses fill in the ``stages``. The options are those of :class:`ResidualAttentionNet`.

    Args:
        stem_channels (int): Channels of the convolution.
    """

    min_size = 1

    def __init__(
        self,
        stem_channels: int,
        out_indices: int | Sequence[int] = -1,
        in_channels: int = 3,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: dict = dict(type='BN'),
        init_cfg: dict | list | None = INIT_CFG,
    ) -> None:
        super().__init__(3, in_channels, out_indices, frozen_stages, norm_eval, init_cfg)
        self.norm_cfg = norm_cfg
        self.stem = nn.Conv2d(in_channels, stem_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of an image.

        Args:
            x (Tensor): Images (N, in_channels, H, W), H and W at least ``min_size``.

        Returns:
            tuple[Tensor]: For each of ``out_indices`` the features (N, channels, H / stride, W / stride), of earlier
            stages as raw sums.

        Raises:
            ValueError: If the shape does not fit.
        """
        check_images(x, self.in_channels, self.min_size)
        x = self.stem(x)
        outs = []
        for i, name in enumerate(self.stages):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outs.append(self.norm(x) if i == 2 else x)
        return tuple(outs)

    def _is_deepest(self, name: str) -> bool:
        return name.startswith('norm.')

    def _frozen_modules(self) -> list[nn.Module]:
        closing = [self.norm] if self.frozen_stages == 3 and hasattr(self, 'norm') else []
        return super()._frozen_modules() + closing


class WideUnit(AttentionPlaces, nn.Module):
    """Pre-activation unit of two 3x3 convolutions, with dropout between them (Wide ResNet, figure 1d)."""

    main_conv = 'conv1'

    def __init__(self, in_channels: int, out_channels: int, stride: int, drop_rate: float, norm_cfg: dict) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.norm1 = norm_relu(norm_cfg, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = norm_relu(norm_cfg, out_channels)
        self.dropout = nn.Dropout(drop_rate)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        shortcut = x if self.shortcut is None else self.shortcut(h)
        h = self.norm2(self.conv1(h))
        return self._run(self.after, self._run(self.branch, self.conv2(self.dropout(h))) + shortcut)


@MODELS.register_module()
class CIFARWideResNet(_PreActNet):
    """Wide ResNet: 16k, 32k and 64k channels at strides 1, 2 and 4.

    Args:
        depth (int): ``6n + 4``. Defaults to 28.
        widen_factor (int): k, at least 1. Defaults to 10.
        drop_rate (float): Dropout in the units, in [0, 1]. Defaults to 0.3.
        attention (dict | Sequence[dict], optional): Attention layers in the units, as for :class:`AttentionResNet`; in
            place ``'conv'`` they replace the first convolution. Defaults to None.
        strides (Sequence[int]): Of each stage. Defaults to (1, 2, 2).
        **kwargs: ``out_indices`` (defaults to -1, the last stage), ``in_channels`` (3), ``frozen_stages`` (-1, none),
            ``norm_eval`` (False), ``norm_cfg`` (``dict(type='BN')``) and ``init_cfg``, as of
            :class:`ResidualAttentionNet`.

    Raises:
        ValueError: If there is no network of this depth, or an index of a stage is out of range.
    """

    def __init__(
        self,
        depth: int = 28,
        widen_factor: int = 10,
        drop_rate: float = 0.3,
        attention: dict | Sequence[dict] | None = None,
        strides: Sequence[int] = (1, 2, 2),
        **kwargs,
    ) -> None:
        super().__init__(16, **kwargs)
        n = _blocks('CIFARWideResNet', depth, 6, 4)
        check_integers(widen_factor=widen_factor)
        check_each_stage(3, strides=strides)
        self.strides = tuple(strides)
        channels = 16
        for i, name in enumerate(self.stages):
            width = 16 * widen_factor * 2**i
            units = [WideUnit(channels, width, strides[i], drop_rate, self.norm_cfg)]
            units += [WideUnit(width, width, 1, drop_rate, self.norm_cfg) for _ in range(n - 1)]
            for layer, blocks, fields in resolve_attention(attention, (n, n, n)):
                for index in blocks[i]:
                    units[index].add_attention(layer, **fields)
            self.add_module(name, nn.Sequential(*units))
            channels = width
            if i == 2:
                self.norm = norm_relu(self.norm_cfg, width)
        self._freeze_stages()


@MODELS.register_module()
class CIFARDenseNet(_PreActNet):
    """DenseNet-BC: dense blocks of bottlenecks, and transitions that halve channels and size.

    A transition belongs to the stage before it, so that the last stage is a dense block of stride 1. There the
    Attention Branch Network is cut.

    Args:
        depth (int): ``6n + 4``. Defaults to 100.
        growth_rate (int): Channels that each layer adds, k. Defaults to 12.
        drop_rate (float): Dropout after each layer, in [0, 1]. Defaults to 0.
        **kwargs: ``out_indices`` (defaults to -1, the last stage), ``in_channels`` (3), ``frozen_stages`` (-1, none),
            ``norm_eval`` (False), ``norm_cfg`` (``dict(type='BN')``) and ``init_cfg``, as of
            :class:`ResidualAttentionNet`.

    Raises:
        ValueError: If there is no network of this depth, or an index of a stage is out of range.
    """

    cut_before = 'stage3'

    def __init__(self, depth: int = 100, growth_rate: int = 12, drop_rate: float = 0.0, **kwargs) -> None:
        check_integers(growth_rate=growth_rate)
        super().__init__(2 * growth_rate, **kwargs)
        n = _blocks('CIFARDenseNet', depth, 6, 4)
        self.min_size = 2 ** min(len(self.stages), 2)  # each transition halves and rounds down
        channels = 2 * growth_rate
        for i, name in enumerate(self.stages):
            block = DenseBlock(
                n, channels, bn_size=4, growth_rate=growth_rate, norm_cfg=self.norm_cfg, drop_rate=drop_rate
            )
            channels += n * growth_rate
            if i == 2:
                self.stage3 = block
                self.norm = norm_relu(self.norm_cfg, channels)
            else:
                transition = DenseTransition(channels, channels // 2, self.norm_cfg)
                self.add_module(name, nn.Sequential(block, transition))
                channels //= 2
        self._freeze_stages()
