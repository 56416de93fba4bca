"""Right for the Right Reasons: gradients are penalised where a person erased (Ross et al., IJCAI 2017)."""

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from .corrected_areas import corrected_areas


@MODELS.register_module()
class GradientPenalty(nn.Module):
    """``loss_weight / N * sum_n sum_p A_np |d/dx_np sum_k log y_nk|^2`` (arXiv:1703.03717, equation 1).

    A is 1 where a person erased, and 0 elsewhere, also where something was added and in images without a correction.
    In the paper x is the image; here it may be features at any layer, of which p are the positions. The gradients do
    not depend on the size of the batch.

    Args:
        loss_weight (float): Weight, at least 0. With a fifth of a batch corrected, 10 makes the penalty as large as the
            classification loss at the last downsampling of a fine-tuned EfficientNet-Lite0. Defaults to 10.0.
    """

    def __init__(self, loss_weight: float = 10.0) -> None:
        super().__init__()
        if loss_weight < 0:
            raise ValueError(f'loss_weight must be at least 0, got {loss_weight}.')
        self.loss_weight = loss_weight

    def forward(self, scores: Tensor, features: Tensor, data_samples: list[DataSample]) -> Tensor:
        """The penalty.

        Args:
            scores (Tensor): Logits (N, K), computed from ``features``.
            features (Tensor): Features or images (N, C, H, W).
            data_samples (list[DataSample]): Samples, of which some have ``gt_erased`` and ``gt_added``.

        Returns:
            Tensor: A single value, to which backpropagation goes a second time through the network.
        """
        indices, erased, added = corrected_areas(data_samples, features)
        if not indices:
            return scores.new_zeros(())
        (gradient,) = torch.autograd.grad(F.log_softmax(scores, 1).sum(), features, create_graph=True)
        squared = gradient[indices].square().sum(1, keepdim=True)  # M, 1, H, W
        return self.loss_weight * (erased * (1 - added) * squared).sum() / len(scores)
