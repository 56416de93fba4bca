"""Residual Attention Network (Wang et al., CVPR 2017, arXiv:1704.06904)."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import NamedTuple

from mmengine.registry import MODELS
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn

from ..layers import MASK_ACTIVATIONS, UNITS, AttentionModule, NormReLU, checkpoint, norm_relu
from ..layers.checks import architecture_fields, check_each_stage, check_images, check_integers
from .stages import INIT_CFG, LayerDepth, Staged


class Stem(NamedTuple):
    """What stands before the first stage."""

    kernel: int  # of the convolution; that of 7x7 has stride 2
    norm: bool  # whether a normalisation and a ReLU follow
    pool: dict | None  # how the 3x3 max pooling of stride 2 treats the border; None: there is no pooling


STEMS = {
    'imagenet': Stem(7, True, dict(ceil_mode=True)),  # no padding, as in the official network
    'resnet': Stem(7, True, dict(padding=1)),  # ResNets everywhere
    'resnetv2': Stem(7, False, dict(padding=1)),  # pre-activation ResNets: the first unit normalises
    'cifar': Stem(3, True, None),
    'conv': Stem(3, False, None),
}


@dataclass(frozen=True)
class Architecture:
    """One network. Every stage is a unit that changes the shape, its attention modules, and ``units_after``.

    Raises:
        ValueError: If a value does not fit, or the number of stages differs between fields.
    """

    channels: Sequence[int]
    strides: Sequence[int]
    modules: Sequence[int]
    poolings: Sequence[int]  # of the masks of each stage
    units_after: Sequence[int]
    unit: str = 'preact'
    stem: str = 'imagenet'
    stem_channels: int = 64
    p: int = 1
    t: int = 2
    r: int = 1
    bottom_units: int | None = None  # 2r, as figure 2 marks the lowest level
    mask_widths: Sequence[int | None] | None = None  # of the units in the masks: the same as on the trunk

    def __post_init__(self) -> None:
        for name, known in (('unit', UNITS), ('stem', STEMS)):
            if getattr(self, name) not in list(known):
                raise ValueError(f'The {name} of an architecture is one of {list(known)}, not {getattr(self, name)!r}.')
        if not isinstance(self.channels, Sequence) or not self.channels:
            raise ValueError(f'channels has one integer for each stage; {self.channels!r} does not fit.')
        n = len(self.channels)
        check_each_stage(n, 1, channels=self.channels, strides=self.strides)
        check_each_stage(n, 0, modules=self.modules, poolings=self.poolings, units_after=self.units_after)
        check_integers(1, stem_channels=self.stem_channels)
        check_integers(0, p=self.p, t=self.t, r=self.r)
        if self.bottom_units is not None:
            check_integers(0, bottom_units=self.bottom_units)
        if self.mask_widths is not None:  # in it, None is the width of the units on the trunk
            check_each_stage(n, 1, mask_widths=[1 if width is None else width for width in self.mask_widths])

    def units(self) -> tuple[int, ...]:
        """Number of units on the trunk of each stage."""
        inside = 2 * self.p + self.t
        return tuple(1 + modules * inside + after for modules, after in zip(self.modules, self.units_after))


IMAGENET = Architecture(
    channels=(256, 512, 1024, 2048),
    strides=(1, 2, 2, 2),
    modules=(1, 1, 1, 0),
    poolings=(3, 2, 1, 0),  # down to 7x7 at 224
    units_after=(0, 0, 0, 2),
)
# The paper leaves widths, poolings and the place of the two units of each stage open. These match its parameter
# counts: 1.9 M for Attention-92, 5.1 M for Attention-236.
CIFAR = Architecture(
    stem='cifar',
    stem_channels=16,
    channels=(64, 128, 256),
    strides=(1, 2, 2),
    modules=(1, 1, 1),
    poolings=(3, 2, 1),  # down to 4x4 at 32
    units_after=(1, 1, 1),
)
# Masks on the trunk of ResNet-50, unit by unit: 3, 4, 6 and 3 units.
RESNET = replace(IMAGENET, unit='bottleneck', stem='resnet', modules=(1, 1, 2, 0), units_after=(0, 1, 1, 2), p=0)
BASIC = replace(RESNET, unit='basic', channels=(64, 128, 256, 512))
ARCHITECTURES = {
    'attention56': IMAGENET,
    'attention92': replace(IMAGENET, modules=(1, 2, 3, 0)),
    'attentionnext56': replace(IMAGENET, unit='resnext'),
    'attentionnext92': replace(IMAGENET, unit='resnext', modules=(1, 2, 3, 0)),
    # An interpretation: the paper gives neither the unit nor its widths nor the stem. It prints the 31.9 M and 6.3 G of
    # Attention-56, which is tested at 224; this one is tested at 299, where the same plan costs 1.8 times as much.
    'attentioninception56': replace(IMAGENET, unit='inception'),
    # Not in the paper: networks that published weights can start (see PretrainedTrunk). The first two have more units
    # than ResNetV2-50 and ResNeXt-50, the others as many as the ResNet in their name.
    'attention92-resnetv2': replace(IMAGENET, modules=(1, 2, 3, 0), stem='resnetv2'),
    'attentionnext92-resnext': replace(IMAGENET, unit='resnext', modules=(1, 2, 3, 0), stem='resnet'),
    'attention-resnet18': replace(BASIC, modules=(1, 1, 1, 0), units_after=(0, 0, 0, 1), t=1),
    'attention-resnet34': BASIC,
    'attention-resnet50': RESNET,
    'attention-resnet101': replace(RESNET, modules=(1, 1, 5, 0), units_after=(0, 1, 12, 2)),
    'attention-resnet152': replace(RESNET, modules=(1, 2, 8, 0), units_after=(0, 3, 19, 2)),
    'attention56-cifar': CIFAR,
    'attention92-cifar': replace(CIFAR, modules=(2, 2, 2)),
    'attention128-cifar': replace(CIFAR, modules=(3, 3, 3)),
    'attention164-cifar': replace(CIFAR, modules=(4, 4, 4)),
    'attention236-cifar': replace(CIFAR, modules=(6, 6, 6)),
    # With 2r = 6 units at the lowest level it would have 10.2 M parameters; with r = 3 it has the paper's 8.6 M (8.5).
    'attention452-cifar': replace(CIFAR, modules=(6, 6, 6), p=2, t=4, r=3, bottom_units=3),
    # The baseline of tables 5 and 6 (He et al., 2016): the same units, no attention, and no normalisation before them.
    'resnet164-cifar': replace(CIFAR, stem='conv', modules=(0, 0, 0), units_after=(17, 17, 17)),
}


def resolve_arch(arch: str | dict | Architecture) -> Architecture:
    """An architecture by its name or its fields.

    Args:
        arch (str | dict | Architecture): A name, or a dict of the fields of :class:`Architecture`. A dict may start
            from a name: ``dict(base='attention56', r=2)``.

    Returns:
        Architecture: All fields.

    Raises:
        ValueError: If a name or field is unknown, a field is missing, or a value does not fit.
    """
    if isinstance(arch, Architecture):
        return arch
    known = {field.name: field.default is MISSING for field in fields(Architecture)}
    named = {name: vars(architecture) for name, architecture in ARCHITECTURES.items()}
    return Architecture(**architecture_fields(arch, named, known))


@MODELS.register_module()
class ResidualAttentionNet(LayerDepth, Staged, BaseBackbone):
    """Residual Attention Network, the graph of the official prototxt files.

    A stem; then for each stage a first unit, which changes the shape, its attention modules and its last units.
    Pre-activation networks end in a normalisation and a ReLU, which act on the output of the last stage alone: earlier
    outputs are raw sums unless ``norm_outputs``.

    | arch                    | parameters  | multiply-adds               | outputs                                 |
    | ----------------------- | ----------- | --------------------------- | --------------------------------------- |
    | attention56             | 29,761,728  | 6.27 G at 224               | 256, 512, 1024, 2048 at strides 4 to 32 |
    | attention92             | 50,417,344  | 10.53 G at 224              | the same                                |
    | attentionnext56         | 29,269,824  | 6.42 G at 224               | the same                                |
    | attentionnext92         | 50,053,952  | 10.70 G at 224              | the same                                |
    | attentioninception56    | 29,229,216  | 6.18 G at 224, 11.38 at 299 | the same                                |
    | attention92-resnetv2    | 50,417,216  | 10.53 G at 224              | the same                                |
    | attentionnext92-resnext | 50,053,952  | 10.70 G at 224              | the same                                |
    | attention-resnet18      | 15,779,776  | 2.43 G at 224              | 64, 128, 256, 512 at strides 4 to 32    |
    | attention-resnet34      | 28,380,864  | 4.42 G at 224              | the same                                |
    | attention-resnet50      | 34,795,584  | 6.35 G at 224              | 256, 512, 1024, 2048 at strides 4 to 32 |
    | attention-resnet101     | 66,788,416  | 11.63 G at 224              | the same                                |
    | attention-resnet152     | 97,358,400  | 17.50 G at 224              | the same                                |
    | attention56-cifar       | 1,027,824   | 0.12 G at 32                | 64, 128, 256 at strides 1 to 4          |
    | attention92-cifar       | 1,838,704   | 0.21 G at 32                | the same                                |
    | attention128-cifar      | 2,649,584   | 0.30 G at 32                | the same                                |
    | attention164-cifar      | 3,460,464   | 0.39 G at 32                | the same                                |
    | attention236-cifar      | 5,082,224   | 0.57 G at 32                | the same                                |
    | attention452-cifar      | 8,509,424   | 0.96 G at 32                | the same                                |
    | resnet164-cifar         | 1,700,688   | 0.25 G at 32                | the same                                |

    ``attentioninception56`` is an interpretation (see :class:`InceptionUnit`), and those named after a ResNet are
    networks that published weights of that ResNet can start (see :class:`PretrainedTrunk`); the others are published,
    except for what the comments beside ``ARCHITECTURES`` name. ``resnet164-cifar`` is the baseline without attention.

    Args:
        arch (str | dict): A name of the table or a dict of the fields of :class:`Architecture`: ``unit``, ``stem``,
            ``stem_channels``, ``p`` (units before the split of a module and after its merge), ``t`` (units of its
            trunk), ``r`` (units between neighbouring poolings of its mask), ``bottom_units`` (at the lowest level of
            the mask, by default ``2 * r``) and, one value a stage, ``channels``, ``strides``, ``modules``,
            ``poolings``, ``units_after`` and, if wanted, ``mask_widths`` (width of the units in the masks; None is
            that on the trunk, a quarter of the channels for ``'preact'``). ``dict(base='attention56', r=2)`` changes
            one field of a name. Defaults to ``'attention56'``.
        attention (str): ``'mixed'`` (f1), ``'channel'`` (f2) or ``'spatial'`` (f3), the activation of the mask (paper,
            section 3.2). Defaults to ``'mixed'``.
        attention_residual_learning (bool): ``(1 + M) * T`` if True, ``M * T`` (naive) if False. Defaults to True.
        mask (str): ``'encoder_decoder'``, or ``'local_conv'``: three units and no pooling (paper, table 4). At full
            width they cost more; ``dict(base='attention56-cifar', mask_widths=(7, 13, 17))`` comes nearest to the
            paper's equal FLOPs. Defaults to ``'encoder_decoder'``.
        in_channels (int): Channels of the input image. Defaults to 3.
        strides (Sequence[int], optional): Stride of each stage, instead of the architecture's.
        dilations (Sequence[int], optional): Dilation of the 3x3 convolutions of each stage, of its masks too; its first
            unit takes that of the stage before, whose grid it reads. Defaults to 1 everywhere.
        out_indices (int | Sequence[int]): Stages whose outputs are returned, from 0; negative ones count from the end.
            Nothing is built past the last of them. Defaults to -1.
        norm_outputs (bool | Sequence[int]): Whether outputs of earlier stages also pass a normalisation and a ReLU of
            their own, which an FPN wants, or of which stages, from 0: with ``start_level=1`` an FPN uses no output of
            stage 0, so ``(1, 2, 3)``. Outputs of post-activation units (AttentionNeXt) are activated and stay as they
            are. Defaults to False.
        frozen_stages (int): Stages that are not trained: 0 freezes the stem, 1 also the first stage, and so on to the
            number of stages, which freezes everything but ``norm_outputs``; -1 freezes nothing. Defaults to -1.
        norm_eval (bool): Whether BatchNorm layers stay in evaluation mode in training. Defaults to False.
        new_masks (bool): Whether the masks are new beside a trained trunk (see :class:`PretrainedTrunk`). They are then
            trained whatever ``frozen_stages`` says, with normalisation by the batch whatever ``norm_eval`` says, and at
            the full learning rate under layer-wise decay. With all stages frozen the masks alone are trained. Defaults
            to False.
        with_cp (bool): Whether to save memory by recomputing the attention modules, or the units of a network without
            them, in the backward pass; BatchNorm then updates its running statistics twice a step. Defaults to False.
        recompute_norms (bool): Whether to save memory by recomputing the normalised features in front of convolutions
            of masks and pre-activation units in the backward pass (see
            :func:`~mmresattn.models.layers.norm_relu_conv.norm_relu_convs`). Outputs do not depend on it; at 32x32,
            where memory is plentiful, False is faster. Defaults to True.
        norm_cfg (dict): Normalisation, by MMCV's registry. Defaults to ``dict(type='BN', requires_grad=True)``.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to Kaiming's ("MSRA") of the convolutions, by
            fan-out as for MMPretrain's ResNet (the paper does not say), and ones for the normalisations.

    Attributes:
        min_size (int): Smallest height and width of an input: 31 for the ImageNet networks (29 with the stem of
            ResNets), 8 for the CIFAR networks with attention, 1 for ResNet-164.

    Raises:
        ValueError: If an argument does not fit; the message says what would.
    """

    def __init__(
        self,
        arch: str | dict = 'attention56',
        attention: str = 'mixed',
        attention_residual_learning: bool = True,
        mask: str = 'encoder_decoder',
        in_channels: int = 3,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        out_indices: int | Sequence[int] = -1,
        norm_outputs: bool | Sequence[int] = False,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        new_masks: bool = False,
        with_cp: bool = False,
        recompute_norms: bool = True,
        norm_cfg: dict = dict(type='BN', requires_grad=True),
        init_cfg: dict | list | None = INIT_CFG,
    ) -> None:
        arch = resolve_arch(arch)
        n = len(arch.channels)
        super().__init__(n, in_channels, out_indices, frozen_stages, norm_eval, init_cfg)
        if mask == 'local_conv':
            arch = replace(arch, poolings=[0] * len(arch.poolings), bottom_units=3)
        elif mask != 'encoder_decoder':
            raise ValueError(f"mask is 'encoder_decoder' or 'local_conv', not {mask!r}.")
        strides = arch.strides if strides is None else strides
        dilations = [1] * n if dilations is None else dilations
        if attention not in MASK_ACTIVATIONS:
            raise ValueError(f'attention is one of {list(MASK_ACTIVATIONS)}, not {attention!r}.')
        check_each_stage(n, strides=strides, dilations=dilations)
        self.arch = arch
        self.new_masks = new_masks
        self.with_cp = with_cp

        unit = UNITS[arch.unit]
        channels = arch.stem_channels
        kernel, norm, pool = STEMS[arch.stem]
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, kernel, 1 if pool is None else 2, padding=kernel // 2, bias=False),
            *([norm_relu(norm_cfg, channels)] if norm else []),
            *([nn.MaxPool2d(3, stride=2, **pool)] if pool else []),
        )
        # Units beside attention modules cost time to recompute and keep little.
        self.recomputed = AttentionModule if any(arch.modules) else unit
        self.strides = list(strides)[: len(self.stages)]
        normed = range(n) if norm_outputs is True else norm_outputs or ()
        for i, stride in enumerate(self.strides):
            width = arch.channels[i]
            make = dict(dilation=dilations[i], norm_cfg=norm_cfg)
            sizes = (width, arch.poolings[i], arch.p, arch.t, arch.r, arch.bottom_units)
            learning = (attention, attention_residual_learning)
            mask_width = arch.mask_widths and arch.mask_widths[i]
            stage = nn.Sequential()
            first = dict(make, dilation=dilations[max(i - 1, 0)])  # it reads the grid of the stage before
            # ResNets project the shortcut where the shape changes, the official network at the start of every stage.
            changes = channels != width or max(stride, arch.strides[i]) > 1
            projection = changes or arch.unit not in ('bottleneck', 'basic')
            stage.add_module('unit1', unit(channels, width, stride, projection=projection, **first))
            for k in range(arch.modules[i]):
                module = AttentionModule(*sizes, *learning, unit, mask_width=mask_width, **make)
                stage.add_module(f'attention{k + 1}', module)
            for k in range(arch.units_after[i]):
                stage.add_module(f'unit{k + 2}', unit(width, width, **make))
            self.add_module(self.stages[i], stage)
            if unit.preactivation and (i == n - 1 or i in normed and i in self.out_indices):
                self.add_module(f'norm{i + 1}', norm_relu(norm_cfg, width))
            channels = width
        for module in self.modules():
            if isinstance(module, NormReLU):
                module.recompute = recompute_norms
        self.min_size = self._min_size(1 if attention != 'spatial' else 2)
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of an image.

        Args:
            x (Tensor): Images (N, in_channels, H, W), H and W at least ``min_size``.

        Returns:
            tuple[Tensor]: For each of ``out_indices`` the features (N, channels, H / stride, W / stride), rounded up
            by convolutions and by the padded pooling of ResNets, down by the official one.

        Raises:
            ValueError: If the shape does not fit.
        """
        check_images(x, self.in_channels, self.min_size)
        x = self.stem(x)
        outs = []
        for i, name in enumerate(self.stages):
            for block in getattr(self, name):
                recompute = self.with_cp and x.requires_grad and isinstance(block, self.recomputed)
                x = checkpoint(block, x) if recompute else block(x)
            if i in self.out_indices:
                outs.append(getattr(self, f'norm{i + 1}')(x) if hasattr(self, f'norm{i + 1}') else x)
        return tuple(outs)

    def _min_size(self, size: int) -> int:
        """Smallest input side for which no map is smaller than 1 (or ``size``, at the masks)."""
        need = 1
        for i, stride in reversed(list(enumerate(self.strides))):
            if self.arch.modules[i]:
                need = max(need, size, 2 ** self.arch.poolings[i])  # a pooling of a mask halves and rounds down
            need = (need - 1) * stride + 1
        pool = STEMS[self.arch.stem].pool
        return need if pool is None else 4 * need - (3 if 'padding' in pool else 1)

    def _frozen_modules(self) -> list[nn.Module]:
        n = len(self.arch.channels)  # norms of earlier outputs have no weights to start from
        closing = [getattr(self, f'norm{n}')] if self.frozen_stages == n and hasattr(self, f'norm{n}') else []
        frozen = super()._frozen_modules() + closing
        if not self.new_masks:
            return frozen
        blocks = [block for module in frozen for block in module]
        return [
            part
            for block in blocks
            for part in ([block.before, block.trunk, block.after] if isinstance(block, AttentionModule) else [block])
        ]

    def train(self, mode: bool = True) -> 'ResidualAttentionNet':
        """Set the training mode; what is frozen stays in evaluation mode (see ``frozen_stages``, ``norm_eval``)."""
        super().train(mode)
        if self.new_masks:
            for module in self.modules():
                if isinstance(module, AttentionModule):
                    module.mask.train(mode)
        return self

    def _is_deepest(self, name: str) -> bool:
        """New masks, and normalisations of outputs, train at the full learning rate."""
        return name.startswith('norm') or self.new_masks and '.mask.' in name
