"""Attention Branch Network (Fukui et al., CVPR 2019, arXiv:1812.10025): the perception branch and the losses."""

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.structures import DataSample
from torch import Tensor

from ..backbones.last_stage import LastStage
from ..layers.checks import check_integers


@MODELS.register_module()
class AttentionBranchHead(LinearClsHead):
    """The perception branch: the last stage of the backbone, global average pooling and a linear layer.

    It trains on the sum of its own loss and that of the attention branch, weighed alike as in the paper. Where people
    have corrected attention maps, their distance to the network's may be added (Mitsuhara et al., arXiv:1905.03540):
    ``map_loss_weight * ||M' - M||``, the Euclidean norm over the positions of a map, with 0 for samples that have none.

    Args:
        backbone (dict): Config of the whole backbone (see :class:`LastStage`).
        num_classes (int): Number of classes.
        map_loss_weight (float, optional): Weight of that distance, at least 0. The corrected map M' of a sample is its
            field ``gt_attention_map``, (H, W) or (1, H, W) in [0, 1], which is resized bilinearly to the size of M.
            Defaults to None: there is no such loss.
        **kwargs: See MMPretrain's ``LinearClsHead``; ``loss`` is that of either branch.

    Raises:
        ValueError: If the backbone cannot be cut or ``map_loss_weight`` is negative.
    """

    class_weights = ('fc',)

    def __init__(self, backbone: dict, num_classes: int, map_loss_weight: float | None = None, **kwargs) -> None:
        check_integers(num_classes=num_classes)
        if map_loss_weight is not None and map_loss_weight < 0:
            raise ValueError(f'map_loss_weight is at least 0, or None for no such loss; got {map_loss_weight}.')
        stage = LastStage(backbone)
        super().__init__(num_classes, stage.out_channels, **kwargs)
        self.stage = stage
        self.map_loss_weight = map_loss_weight

    def pre_logits(self, feats: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """What the linear layer classifies.

        Args:
            feats (tuple[Tensor]): Attended features (N, C, H, W), and whatever else the neck gives.

        Returns:
            Tensor: (N, in_channels).
        """
        return self.stage(feats[0]).mean((2, 3))

    def loss(self, feats: tuple[Tensor, Tensor, Tensor], data_samples: list[DataSample], **kwargs) -> dict[str, Tensor]:
        """Losses of both branches.

        Args:
            feats (tuple[Tensor]): From :class:`AttentionBranchNeck`.
            data_samples (list[DataSample]): With ``gt_label`` or, after mixup, ``gt_score``.
            **kwargs: For the loss.

        Returns:
            Dict[str, Tensor]: ``perception_loss``, ``attention_loss`` and, with ``map_loss_weight``, ``map_loss``:
            means over the batch, which MMEngine adds up. With ``cal_acc`` the accuracies of both branches, too.

        Raises:
            ValueError: If a ``gt_attention_map`` is no map, or images that have one were mixed with others.
        """
        branches = {'perception': self(feats), 'attention': feats[1]}
        losses = {
            f'{branch}_{name}': value
            for branch, scores in branches.items()
            for name, value in self._get_loss(scores, data_samples, **kwargs).items()
        }
        if self.map_loss_weight is not None:
            losses['map_loss'] = self.map_loss_weight * self._map_distance(feats[2], data_samples)
        return losses

    def _map_distance(self, attention: Tensor, data_samples: list[DataSample]) -> Tensor:
        """Mean over the batch of ||M' - M||, for maps M (N, 1, H, W)."""
        if any('gt_attention_map' in sample for sample in data_samples) and 'gt_score' in data_samples[0]:
            if (torch.stack([sample.gt_score for sample in data_samples]).amax(1) < 1).any():  # one-hot where unmixed
                raise ValueError(
                    'Images with a gt_attention_map were mixed with others (their gt_score is of several classes), and '
                    'their maps were not. Leave mixup and cutmix out of model.train_cfg, or the maps out of the '
                    'pipeline.'
                )
        distance = attention.new_zeros(())
        for m, sample in zip(attention, data_samples):
            if 'gt_attention_map' in sample:
                target = torch.as_tensor(sample.gt_attention_map).to(m)
                if target.dim() not in (2, 3) or target.dim() == 3 and len(target) != 1:
                    raise ValueError(f'gt_attention_map is (H, W) or (1, H, W), not {tuple(target.shape)}.')
                target = F.interpolate(target.view(1, 1, *target.shape[-2:]), m.shape[1:], mode='bilinear')
                distance = distance + torch.linalg.vector_norm(target[0] - m)
        return distance / len(attention)

    def predict(
        self, feats: tuple[Tensor, Tensor, Tensor], data_samples: list[DataSample | None] | None = None
    ) -> list[DataSample]:
        """Predictions: those of the perception branch, and beside them those of the attention branch.

        MMPretrain's ``MultiTasksMetric`` evaluates the latter:
        ``dict(type='MultiTasksMetric', task_metrics=dict(attention_branch=[dict(type='Accuracy')]))``.

        Args:
            feats (tuple[Tensor]): From :class:`AttentionBranchNeck`.
            data_samples (list[DataSample], optional): Samples to write into.

        Returns:
            List[DataSample]: ``pred_score`` (K,) and ``pred_label`` (1,) of the perception branch; in
            ``attention_branch``, a sample itself, those of the attention branch. Test-time augmentation averages the
            former alone.
        """
        samples = super().predict(feats, data_samples)
        for sample, branch in zip(samples, self._get_predictions(feats[1], None)):
            if 'gt_label' in sample:
                branch.set_gt_label(sample.gt_label)
            branch.eval_mask = True  # MultiTasksMetric asks for it
            sample.set_field(branch, 'attention_branch')
        return samples
