"""Stages that are not trained, in one way for the backbones of this package."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class FrozenStages:
    """Mixin of backbones that keep a ``stem`` and, under the names in ``stages``, their stages.

    A backbone calls ``_freeze_stages`` when it is built; from then on ``train`` does.

    Attributes:
        frozen_stages (int): Stages that are not trained: 0 freezes the stem, 1 also the first stage, and so on; -1
            freezes nothing.
        norm_eval (bool): Whether BatchNorm layers stay in evaluation mode in training.
    """

    frozen_stages: int
    norm_eval: bool
    stages: list[str]

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [getattr(self, name) for name in ('stem', *self.stages[: self.frozen_stages])]

    def _freeze_stages(self) -> None:
        for module in self._frozen_modules():
            module.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> 'FrozenStages':
        """Set the training mode; frozen stages, and BatchNorm with ``norm_eval``, stay in evaluation mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
