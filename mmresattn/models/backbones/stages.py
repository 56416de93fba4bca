"""What backbones of a stem and stages have in common: their checks, frozen stages and depths of parameters.

A new backbone is made of ``LayerDepth`` and ``Staged``. Its children are ``stem`` and those named in ``stages``, and
``_freeze_stages`` ends its ``__init__``. An Attention Branch Network cuts it before its last downsampling, or before
the module that ``cut_before`` names.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers.checks import check_frozen_stages, check_images, check_integers, stage_indices

# "MSRA" of the papers, by fan-out as for MMPretrain's ResNet.
INIT_CFG = [dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm'])]


class Staged:
    """Mixin of backbones that keep a ``stem`` and, under the names in ``stages``, their stages.

    A backbone calls ``_freeze_stages`` when it is built; from then on ``train`` does.

    Args:
        n (int): Number of stages. The others are those of :class:`ResidualAttentionNet`.

    Attributes:
        stages (list[str]): Names of the stages that are to be built: none past the last one that is returned.
    """

    def __init__(
        self,
        n: int,
        in_channels: int,
        out_indices: int | Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: dict | list | None,
    ) -> None:
        super().__init__(init_cfg)
        check_integers(in_channels=in_channels)
        check_frozen_stages(frozen_stages, n)
        self.in_channels = in_channels
        self.out_indices = stage_indices(out_indices, n)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.stages = [f'stage{i + 1}' for i in range(self.out_indices[-1] + 1)]

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [getattr(self, name) for name in ('stem', *self.stages[: self.frozen_stages])]

    def _freeze_stages(self) -> None:
        for module in self._frozen_modules():
            module.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> 'Staged':
        """Set the training mode; frozen stages, and BatchNorm with ``norm_eval``, stay in evaluation mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


class MendedResNet:
    """Mixin for MMPretrain's ResNets: a forward that says what is wrong, and ``train`` and ``eval`` that return."""

    in_channels: int
    min_size = 1

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of an image.

        Args:
            x (Tensor): Images (N, in_channels, H, W), H and W at least ``min_size``.

        Returns:
            tuple[Tensor]: For each of ``out_indices`` the features (N, channels, H / stride, W / stride), rounded up,
            but down by ``caffe_pool``.

        Raises:
            ValueError: If the shape does not fit.
        """
        check_images(x, self.in_channels, self.min_size)
        return super().forward(x)

    def train(self, mode: bool = True) -> 'MendedResNet':
        """Set the training mode; frozen stages, and BatchNorm with ``norm_eval``, stay in evaluation mode."""
        super().train(mode)
        return self


class LayerDepth:
    """Mixin of backbones whose blocks are the children of the stages that ``stages`` names."""

    stages: list[str]

    def _is_deepest(self, name: str) -> bool:
        """Whether a parameter of no block is as deep as the head instead of the stem."""
        return False

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay.

        The stem is 0, each block of a stage is one more, and parameters outside of the backbone are the deepest.

        Args:
            param_name (str): Name of the parameter in the whole model.
            prefix (str): Name of this backbone in it, such as ``'backbone.'``. Defaults to ''.

        Returns:
            tuple[int, int]: Depth of the parameter and number of depths.
        """
        blocks = [f'{stage}.{block}' for stage in self.stages for block, _ in getattr(self, stage).named_children()]
        name = param_name.removeprefix(prefix)
        if not param_name.startswith(prefix) or self._is_deepest(name):
            return len(blocks) + 1, len(blocks) + 2
        block = '.'.join(name.split('.')[:2])
        return blocks.index(block) + 1 if block in blocks else 0, len(blocks) + 2
