"""Attention Branch Network for numbers: a steering angle, an age, a count (Mori et al., IEEE IV 2019, for steering).

Neck and head of an :class:`~mmresattn.models.AttentionBranchNetwork` whose two branches give values instead of scores,
and the head of the plain network beside them. There are no classes whose responses the map could be made of: the
attention branch has hidden maps, from which come both its values and the attention map.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..backbones.cut import LastStage
from .attention_branch_network import AttentionBranchHead, AttentionBranchNeck

LOSSES = {'l1': F.l1_loss, 'l2': F.mse_loss, 'smooth_l1': F.smooth_l1_loss}


@MODELS.register_module()
class RegressionHead(LinearClsHead):
    """A linear layer that gives numbers.

    It works in units of the targets' deviation, so that losses and learning rates mean the same for angles and ages.

    Args:
        num_classes (int): Number of values, V. It has the name that it has in other heads.
        in_channels (int): Number of features.
        loss (str): ``'l1'``, ``'l2'`` or ``'smooth_l1'`` (beta 1), of the values in units of their deviation. Defaults
            to ``'l1'``.
        mean (float | Sequence[float]): Mean of each value over the training images. Defaults to 0.
        std (float | Sequence[float]): Its standard deviation. Defaults to 1.
        **kwargs: See ``LinearClsHead``.

    Raises:
        ValueError: If the loss is another one or a deviation is not positive.
    """

    class_weights = ('fc',)

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        loss: str = 'l1',
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, in_channels, loss=nn.Identity(), **kwargs)
        if loss not in LOSSES:
            raise ValueError(f'loss is one of {list(LOSSES)}, not {loss!r}.')
        self.loss_function = LOSSES[loss]
        self.register_buffer('mean', torch.as_tensor(mean, dtype=torch.float32).expand(num_classes).clone())
        self.register_buffer('std', torch.as_tensor(std, dtype=torch.float32).expand(num_classes).clone())
        if self.std.device.type != 'meta' and not (self.std > 0).all():
            raise ValueError(f'std is positive for each value, not {std}.')

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Values (N, V) of features, in the units of the targets."""
        return self.in_units(super().forward(feats))

    def in_units(self, values: Tensor) -> Tensor:
        """Values (N, V) in units of their deviation, in the units of the targets."""
        return values * self.std + self.mean

    def _get_loss(self, values: Tensor, data_samples: list[DataSample], **kwargs) -> dict[str, Tensor]:
        targets = torch.stack([torch.as_tensor(sample.gt_value).to(values) for sample in data_samples])
        loss = self.loss_function(values / self.std, targets / self.std)
        return dict(loss=loss, mae=(values - targets).abs().mean().detach())

    def _get_predictions(self, values: Tensor, data_samples: list[DataSample | None] | None) -> list[DataSample]:
        """Data samples with ``pred_value`` (V,)."""
        data_samples = [sample or DataSample() for sample in data_samples or [None] * len(values)]
        for sample, value in zip(data_samples, values.detach()):
            sample.set_field(value, 'pred_value')
        return data_samples


@MODELS.register_module()
class AttentionBranchRegressionNeck(AttentionBranchNeck):
    """The attention branch for numbers: hidden maps, from these the attention map and, pooled, the branch's values.

    Args:
        stage (LastStage): The copy of the backbone's last stage at stride 1.
        num_classes (int): Number of values, V.
        hidden_maps (int): Number of hidden maps. Defaults to 32.
        **kwargs: See :class:`AttentionBranchNeck`.
    """

    def __init__(self, stage: LastStage, num_classes: int, hidden_maps: int = 32, **kwargs) -> None:
        super().__init__(stage, hidden_maps, **kwargs)
        # Maps are not negative; the linear layer behind their means has a bias and any sign.
        self.class_scores = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(hidden_maps, num_classes))


@MODELS.register_module()
class AttentionBranchRegressionHead(AttentionBranchHead, RegressionHead):
    """The perception branch for numbers, and the losses of both branches with equal weights.

    Losses are ``perception_loss``, ``attention_loss``, the mean absolute error of either, and perhaps ``map_loss``.
    Predictions are data samples with ``pred_value`` (V,), and in each a sample ``attention_branch`` with that of the
    other branch.

    Args:
        stage (LastStage): The backbone's last stage.
        num_classes (int): Number of values, V.
        map_loss (dict, optional): As for :class:`AttentionBranchHead`.
        **kwargs: ``loss``, ``mean``, ``std`` and others of :class:`RegressionHead`.
    """

    def branch_scores(self, feats: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Values of the attention branch, in the units of the targets."""
        return self.in_units(feats[1])
