"""Loss between attention maps and their corrected versions (Mitsuhara et al., arXiv:1905.03540)."""

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn


def corrected_maps(data_samples: list[DataSample], like: Tensor) -> tuple[list[int], Tensor]:
    """Read the corrected maps of a batch.

    Args:
        data_samples (list[DataSample]): Samples, of which some have a field ``gt_attention_map``, (H, W) or (1, H, W)
            with values in [0, 1].
        like (Tensor): Maps (N, 1, h, w) whose size, type and device the corrected maps take. They are resized
            bilinearly.

    Returns:
        tuple[list[int], Tensor]: Indices of the M samples that have a corrected map, and their maps (M, 1, h, w).

    Raises:
        ValueError: If a map has another shape, or if images with corrected maps were mixed with others.
    """
    indices = [i for i, sample in enumerate(data_samples) if 'gt_attention_map' in sample]
    if indices and any('gt_score' in sample and sample.gt_score.max() < 1 for sample in data_samples):
        raise ValueError(
            'Images with a gt_attention_map were mixed with others (a gt_score has several classes), but their maps '
            'were not. Remove mixup and cutmix from model.train_cfg, or the maps from the pipeline.'
        )
    maps = []
    for i in indices:
        corrected = torch.as_tensor(data_samples[i].gt_attention_map).to(like)
        if corrected.dim() not in (2, 3) or corrected.dim() == 3 and len(corrected) != 1:
            raise ValueError(f'gt_attention_map is (H, W) or (1, H, W), not {tuple(corrected.shape)}.')
        corrected = corrected.view(1, 1, *corrected.shape[-2:])
        maps.append(F.interpolate(corrected, like.shape[2:], mode='bilinear'))
    return indices, torch.cat(maps) if maps else like.new_empty(0, *like.shape[1:])


@MODELS.register_module()
class AttentionMapLoss(nn.Module):
    """``loss_weight * ||M' - M||``: the Euclidean norm over the positions of a map, averaged over the batch.

    M' is the corrected map of an image; images without one add 0. The paper does not print the weight.

    Args:
        loss_weight (float): Weight, at least 0. Defaults to 1.0.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        if loss_weight < 0:
            raise ValueError(f'loss_weight must be at least 0, got {loss_weight}.')
        self.loss_weight = loss_weight

    def forward(self, attention: Tensor, data_samples: list[DataSample]) -> Tensor:
        """Distance to the corrected maps.

        Args:
            attention (Tensor): Attention maps (N, 1, H, W).
            data_samples (list[DataSample]): See :func:`corrected_maps`.

        Returns:
            Tensor: A single value.
        """
        indices, corrected = corrected_maps(data_samples, attention)
        # The gradient of vector_norm at 0 is 0; that of a square root is infinite.
        distances = torch.linalg.vector_norm(corrected - attention[indices], dim=(1, 2, 3))
        return self.loss_weight * distances.sum() / len(attention)
