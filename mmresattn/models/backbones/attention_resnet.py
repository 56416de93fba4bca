"""ResNet and ResNeXt with attention in their blocks: SENet, non-local networks, any layer that says where it sits."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmpretrain.models.backbones.resnet import BasicBlock, ResLayer, ResNet
from mmpretrain.models.backbones.resnext import Bottleneck
from torch import Tensor, nn

from ..layers import checkpoint
from ..layers.checks import check_each_stage, check_frozen_stages, check_integers, stage_indices
from .attention_places import AttentionPlaces, resolve_attention
from .stages import LayerDepth, MendedResNet


class AttentionBasicBlock(AttentionPlaces, BasicBlock):
    """MMPretrain's block of ResNet-18 and ResNet-34, with places for attention."""

    main_conv = 'conv1'

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm1(self.conv1(x)))
        h = self._run(self.branch, self.norm2(self.conv2(h)))  # N, out_channels, H / stride, W / stride, from here on
        shortcut = x if self.downsample is None else self.downsample(x)
        return self._run(self.after, self.relu(self.drop_path(h) + shortcut))


class AttentionBottleneck(AttentionPlaces, Bottleneck):
    """MMPretrain's bottleneck of ResNeXt, and of ResNet with one group, with places for attention."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm1(self.conv1(x)))
        h = self.relu(self.norm2(self.conv2(h)))
        h = self._run(self.branch, self.norm3(self.conv3(h)))  # N, out_channels, H / stride, W / stride, from here on
        shortcut = x if self.downsample is None else self.downsample(x)
        return self._run(self.after, self.relu(self.drop_path(h) + shortcut))


class AttentionResLayer(ResLayer, BaseModule):
    """A stage. Being a BaseModule, it takes MMEngine's initialisation on to the layers in its blocks."""

    def __init__(self, with_cp: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            x = checkpoint(block, x) if self.with_cp and x.requires_grad else block(x)
        return x


@MODELS.register_module()
class AttentionResNet(LayerDepth, MendedResNet, ResNet):
    """MMPretrain's ResNet or ResNeXt with attention layers in its blocks.

    Every layer class says in ``place`` where in a block it sits: ``'branch'`` (SqueezeExcitation), ``'after'``
    (NonLocalAttention) or ``'conv'`` (AttentionAugmentedConv). Names of parameters are those of MMPretrain, so
    checkpoints of its ResNet, ResNeXt, SEResNet and SEResNeXt load.

    Args:
        depth (int): 18, 34, 50, 101 or 152.
        attention (dict | Sequence[dict], optional): Layers: ``type`` (a registered name or a class), ``stages`` and
            the arguments of the layer. ``stages`` has for each stage True (every block), False (none) or indices of
            blocks, of which negative ones count from the end; it defaults to every block. Defaults to None.
        groups (int): Groups of the 3x3 convolutions; more than one makes a ResNeXt. Defaults to 1.
        width_per_group (int): Channels of a group in the first stage, for a ResNeXt. Defaults to 4.
        num_stages (int): Stages of the network. Defaults to 4.
        strides (Sequence[int]): Stride of each stage. Defaults to ``(1, 2, 2, 2)``.
        dilations (Sequence[int]): Dilation of the 3x3 convolutions of each stage. Defaults to ``(1, 1, 1, 1)``.
        out_indices (int | Sequence[int]): Stages whose outputs are returned, from 0, each (N, channels, H / stride,
            W / stride); negative ones count from the end. Nothing is built past the last of them. Defaults to -1.
        frozen_stages (int): Stages that are not trained: 0 freezes the stem, 1 also the first stage, and so on; -1
            freezes nothing. Defaults to -1.
        caffe_pool (bool | str): Whether the pooling of the stem has no padding and rounds up, as in Caffe's networks;
            with ``'floor'`` it rounds down, as in Caffe2's. Images then are at least 3 and 5 high and wide. Defaults
            to False.
        in_channels (int): Channels of the input image. Defaults to 3.
        style (str): ``'pytorch'``, or ``'caffe'``, which puts the stride on the first 1x1 convolution. Defaults to
            ``'pytorch'``.
        **kwargs: ``stem_channels``, ``base_channels``, ``deep_stem``, ``avg_down``, ``conv_cfg``, ``norm_cfg``,
            ``norm_eval``, ``with_cp``, ``zero_init_residual``, ``drop_path_rate`` and ``init_cfg`` of MMPretrain's
            ResNet. With ``with_cp`` blocks are recomputed in the backward pass, also with edited maps; BatchNorm then
            updates its running statistics twice a step.

    Raises:
        ValueError: If an argument does not fit; the message says what would.

    Example:
        >>> AttentionResNet(50, dict(type='SqueezeExcitation', ratio=16))
        >>> AttentionResNet(50, dict(type='NonLocalAttention', stages=(False, False, [-2], False)))
    """

    arch_settings = {
        depth: (AttentionBasicBlock if block is BasicBlock else AttentionBottleneck, blocks)
        for depth, (block, blocks) in ResNet.arch_settings.items()
    }

    def __init__(
        self,
        depth: int,
        attention: dict | Sequence[dict] | None = None,
        groups: int = 1,
        width_per_group: int = 4,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = -1,
        caffe_pool: bool | str = False,
        in_channels: int = 3,
        style: str = 'pytorch',
        **kwargs,
    ) -> None:
        if depth not in self.arch_settings:
            raise ValueError(f'depth is one of {list(self.arch_settings)}, not {depth!r}.')
        check_each_stage(num_stages, strides=strides, dilations=dilations)
        check_frozen_stages(frozen_stages, num_stages)
        out_indices = stage_indices(out_indices, num_stages)
        check_integers(groups=groups, width_per_group=width_per_group)
        check_integers(in_channels=in_channels, base_channels=kwargs.get('base_channels', 64))
        check_integers(2 if kwargs.get('deep_stem') else 1, stem_channels=kwargs.get('stem_channels', 64))
        if style not in ('pytorch', 'caffe'):
            raise ValueError(f"style is 'pytorch' or 'caffe', not {style!r}.")
        if caffe_pool not in (True, False, 'floor'):
            raise ValueError(f"caffe_pool is True, False or 'floor', not {caffe_pool!r}.")
        block, numbers = self.arch_settings[depth]
        if groups != 1 and block is AttentionBasicBlock:
            raise ValueError(f'ResNet-{depth} has no groups; a ResNeXt has a depth of 50, 101 or 152.')
        self.groups = groups
        self.width_per_group = width_per_group
        self.attention = resolve_attention(attention, numbers[:num_stages])
        built = out_indices[-1] + 1
        super().__init__(
            depth,
            num_stages=built,
            strides=strides[:built],
            dilations=dilations[:built],
            out_indices=out_indices,
            frozen_stages=min(frozen_stages, built),
            in_channels=in_channels,
            style=style,
            **kwargs,
        )
        settings = dict(style=style, caffe_pool=caffe_pool)
        usual = dict(style='pytorch', caffe_pool=False)
        # What the names and shapes of the weights do not show, where published checkpoints differ.
        self.hidden_settings = {key: value for key, value in settings.items() if value != usual[key]}
        if caffe_pool:
            self.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=caffe_pool is True)
        self.in_channels = in_channels
        self.stages = self.res_layers
        # For that pooling; a layer in a block may need more.
        self.min_size = {False: 1, True: 3, 'floor': 5}[caffe_pool]

    def make_res_layer(self, **kwargs) -> AttentionResLayer:
        stage = len(self.res_layers)
        if issubclass(kwargs['block'], Bottleneck):
            kwargs.update(groups=self.groups, width_per_group=self.width_per_group, base_channels=self.base_channels)
        res_layer = AttentionResLayer(**kwargs)
        for layer, blocks, fields in self.attention:
            for index in blocks[stage]:
                res_layer[index].add_attention(layer, **fields)
        return res_layer
