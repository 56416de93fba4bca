"""Soft mask branches around the blocks of any backbone (Wang et al., CVPR 2017, arXiv:1704.06904, section 3)."""

import copy
import math
from collections.abc import Sequence

import torch
from mmengine.model import initialize
from mmengine.registry import MODELS
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn

from ..layers import AttentionModule, SoftMaskBranch
from ..layers.checks import check_integers

# Residual blocks of MMPretrain and timm: classes of these names and what inherits from them.
BLOCKS = (
    'BasicBlock',
    'Bottleneck',
    'PreActBottleneck',
    'PreBottleneck',
    'ConvNeXtBlock',
    'InvertedResidual',
    'UniversalInvertedResidual',
    'EdgeResidual',
)


class AddedSoftMaskBranch(SoftMaskBranch):
    """Soft mask branch beside given blocks, whose output starts at zero. Options are those of its base class."""

    place = 'branch'  # of what is added to a backbone, and so may be missing in a checkpoint to start from

    def init_weights(self) -> None:
        """Initialise as the paper does, but for the last convolution."""
        initialize(self, [dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer='_BatchNorm')])
        nn.init.zeros_(self.linear[-1].weight)


class AttentionAroundBlocks(AttentionModule):
    """Attention module whose trunk ``T`` is given and whose output starts as ``T``.

    The output is ``(1 + M) * T / (1 + M0)``, where ``M0`` is the mask of a zero input. The last convolution of the soft
    mask branch starts at zero, so ``M = M0`` at first and the factor is exactly 1.

    Args:
        trunk (Sequence[nn.Module]): Blocks that keep the shape (N, C, H, W).
        **others: Of :class:`AttentionModule`.
    """

    mask_type = AddedSoftMaskBranch

    def __init__(self, trunk: Sequence[nn.Module], channels: int, poolings: int, **others) -> None:
        super().__init__(channels, poolings, p=0, t=0, **others)
        self.trunk = nn.Sequential(*trunk)
        self.mask.init_weights()

    def forward(self, x: Tensor) -> Tensor:
        self._check_size(x)
        mask = self.map(self.activation(self.mask(x)))  # N, C, H, W
        return self.trunk(x) * ((1 + mask) / 1.5)  # 1 + M0: both sigmoids give 1/2 of zero


@MODELS.register_module()
class ResidualAttention(BaseBackbone):
    """A backbone of MMPretrain or timm with soft mask branches around its residual blocks.

    The trunk of an attention module may come from any network (paper, section 3). In every stage, the blocks that keep
    the shape of their input become the trunk ``T`` of an attention module, and a soft mask branch of the same input
    gives its mask ``M``. The module's output is ``(1 + M) * T / (1 + M0)``, which equals ``T`` at the start: a
    pretrained backbone keeps its outputs, and the masks learn from there.

    Weights of the plain backbone load under their own names, by ``init_cfg`` of ``trunk`` or, of a whole classifier, by
    ``load_from``; the masks then stay as they are::

        backbone=dict(
            type='ResidualAttention',
            trunk=dict(type='ResNet', depth=50, init_cfg=dict(type='Pretrained', checkpoint=FILE, prefix='backbone')),
        )

    Output stages, ``frozen_stages`` and the like are options of ``trunk``. A stage that the trunk freezes is frozen
    with its masks.

    Args:
        trunk (dict): Config of the backbone: a convolutional network with residual blocks, such as MMPretrain's
            ``ResNet`` and its relatives, ``RegNet``, ``ConvNeXt``, ``EfficientNet``, ``MobileNetV2`` and
            ``MobileNetV3``, and ``TIMMBackbone`` with such networks.
        attention (str): ``'mixed'`` (f1) or ``'spatial'`` (f3), the activation of the masks (paper, section 3.2). The
            L2 normalisation of ``'channel'`` (f2) has no finite gradient at zero, where these masks start. Defaults to
            ``'mixed'``.
        poolings (Sequence[int | None], optional): Poolings of the soft mask branch at each run of blocks; None leaves
            out the mask. By default masks go down to the size of the backbone's last features, and blocks of that size
            have none, as in the paper: ``(3, 2, 1, None)`` for a ResNet.
        mask_width (float): Width of the units in the masks as a share of the channels. Defaults to 0.25.
        freeze_trunk (bool): Whether to train the masks alone: the trunk keeps its weights and stays in evaluation mode,
            with its normalisations. Defaults to False.
        blocks (Sequence[str]): Names of the classes whose modules are blocks, subclasses included. Defaults to the
            residual blocks of MMPretrain and timm.
        norm_cfg (dict): Normalisation of the masks, by MMCV's registry. Defaults to ``dict(type='BN')``.

    Raises:
        ValueError: If the backbone has no blocks that keep the shape of their input, or an argument does not fit.
    """

    def __init__(
        self,
        trunk: dict,
        attention: str = 'mixed',
        poolings: Sequence[int | None] | None = None,
        mask_width: float = 0.25,
        freeze_trunk: bool = False,
        blocks: Sequence[str] = BLOCKS,
        norm_cfg: dict = dict(type='BN'),
    ) -> None:
        super().__init__()
        if attention == 'channel':
            raise ValueError(
                "attention='channel' cannot be added to a trained backbone: these masks start at zero, where the "
                "gradient of its L2 normalisation is infinite. Use 'mixed' or 'spatial'."
            )
        if attention not in ('mixed', 'spatial'):
            raise ValueError(f"attention is 'mixed' or 'spatial', not {attention!r}.")
        self.freeze_trunk = freeze_trunk
        # A plain name is MMPretrain's, whatever package's model was built last in this process.
        self.plain = {'_scope_': 'mmpretrain', **trunk}
        self.trunk = MODELS.build(self.plain)
        plain = {id(tensor): name for name, tensor in self.trunk.state_dict(keep_vars=True).items()}
        if freeze_trunk:
            self.trunk.requires_grad_(False)

        runs, smallest = _find_runs(self.trunk, trunk.get('in_channels', 3), blocks)
        if poolings is None:
            levels = [int(math.log2(size / smallest)) for _, _, size in runs]
            poolings = [level or None for level in levels] if any(levels) else [1] * len(runs)
        if len(poolings) != len(runs):
            raise ValueError(
                f'poolings has one number (or None) for each of the {len(runs)} runs of blocks '
                f'{[names for names, _, _ in runs]}; {poolings!r} does not fit.'
            )
        self.attention_modules = []
        for (names, channels, _), number in zip(runs, poolings):
            if number is None:
                continue
            check_integers(0, poolings=number)
            modules = [self.trunk.get_submodule(name) for name in names]
            options = dict(attention=attention, norm_cfg=norm_cfg, mask_width=max(1, round(mask_width * channels)))
            module = AttentionAroundBlocks(modules, channels, number, **options)
            for name in names:  # the attention module stands for the first block, and contains all of them
                self.trunk.set_submodule(name, module if name == names[0] else nn.Identity())
            self.attention_modules.append(f'trunk.{names[0]}')

        self.plain_names = {  # of the trunk's weights, by the names that they have here
            name: plain[id(tensor)] for name, tensor in self.state_dict(keep_vars=True).items() if id(tensor) in plain
        }
        self.register_load_state_dict_pre_hook(_take_plain_weights)

    def init_weights(self) -> None:
        """Take the weights of a freshly initialised plain backbone, and initialise the masks."""
        plain = MODELS.build(self.plain)
        plain.init_weights()
        self.load_state_dict(plain.state_dict(), strict=False)  # without the masks
        for name in self.attention_modules:
            self.get_submodule(name).mask.init_weights()
        self._is_init = True

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of an image.

        Args:
            x (Tensor): Images (N, 3, H, W).

        Returns:
            tuple[Tensor]: As of the trunk alone.

        Raises:
            ValueError: If the features at a mask are smaller than its poolings need.
        """
        return self.trunk(x)

    def train(self, mode: bool = True) -> 'ResidualAttention':
        """Set the training mode; with ``freeze_trunk``, for the masks alone."""
        super().train(mode)
        if self.freeze_trunk:
            self.trunk.eval()
            for name in self.attention_modules:
                self.get_submodule(name).mask.train(mode)
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter in the plain backbone, and number of depths, for layer-wise learning-rate decay.

        ``param_name`` is its name in the whole model, and ``prefix`` that of this backbone in it, such as
        ``'backbone.'``. A mask is as deep as the last block beside it.
        """
        if not param_name.startswith(prefix):
            return self.trunk.get_layer_depth(param_name, prefix)
        name = param_name.removeprefix(prefix)
        if name not in self.plain_names:  # of a mask
            blocks = name.partition('.mask.')[0] + '.trunk.'
            name = [own for own in self.plain_names if own.startswith(blocks)][-1]
        return self.trunk.get_layer_depth(prefix + self.plain_names[name], prefix)


def _find_runs(
    trunk: nn.Module, in_channels: int, blocks: Sequence[str]
) -> tuple[list[tuple[list[str], int, int]], int]:
    """The runs of blocks that keep the shape of their input, and the smallest height of the output of a block.

    Of each run the names of its blocks, their channels and the height of their features; heights are for images of
    224x224.
    """
    probe = copy.deepcopy(trunk).to('meta')  # computes shapes alone
    probe.eval()  # of MMPretrain's backbones returns None
    calls = []
    names: list[str] = []
    for name, module in probe.named_modules():
        inside = names and name.startswith(f'{names[-1]}.')
        if not inside and any(kind.__name__ in blocks for kind in type(module).__mro__):
            names.append(name)
            module.register_forward_hook(lambda _, args, output, name=name: calls.append((name, args[0], output)))
    with torch.no_grad():
        outputs = probe(torch.empty(1, in_channels, 224, 224, device='meta'))
    returned = {id(output) for output in outputs}

    runs: list[tuple[list[str], int, int]] = []
    previous, parent = None, None  # output and parent of the run before, which goes on if this block takes it
    for name, x, output in calls:
        if x.shape != output.shape:
            previous = None
            continue
        if x is previous and id(x) not in returned and name.rpartition('.')[0] == parent:
            runs[-1][0].append(name)
        else:
            runs.append(([name], x.shape[1], x.shape[2]))
        previous, parent = output, name.rpartition('.')[0]
    if not runs:
        found = ', '.join(sorted({type(probe.get_submodule(name)).__name__ for name in names})) or 'none'
        raise ValueError(
            f'{type(trunk).__name__} has no residual blocks that keep the shape of their input, around which soft '
            f'masks could be put (blocks found: {found}). If its blocks have another class, name it: '
            "blocks=['ItsClass']."
        )
    return runs, min(output.shape[2] for _, _, output in calls)


def _take_plain_weights(model: ResidualAttention, state_dict: dict, prefix: str, *_) -> None:
    """Let a model load the weights of the plain backbone under their own names."""
    for name, plain in model.plain_names.items():
        if prefix + plain in state_dict:
            state_dict[prefix + name] = state_dict.pop(prefix + plain)
