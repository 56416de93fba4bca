"""Areas that people corrected, as tensors of a batch."""

import torch
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d


def corrected_areas(data_samples: list[DataSample], like: Tensor) -> tuple[list[int], Tensor, Tensor]:
    """Areas that people erased and added, of the samples that have a correction.

    Args:
        data_samples (list[DataSample]): Samples, of which some have ``gt_erased`` and ``gt_added``, each (H, W).
        like (Tensor): Features (N, C, h, w) whose size, type and device the areas take, averaged over each position.

    Returns:
        tuple[list[int], Tensor, Tensor]: Indices of the M samples with a correction; ``erased`` and ``added``
        (M, 1, h, w) in [0, 1].
    """
    indices = [i for i, sample in enumerate(data_samples) if 'gt_erased' in sample]

    def stack(key: str) -> Tensor:
        areas = [torch.as_tensor(data_samples[i].get(key)).to(like)[None, None] for i in indices]
        sized = [adaptive_avg_pool2d(area, like.shape[2:]) for area in areas]
        return torch.cat(sized) if sized else like.new_empty(0, 1, *like.shape[2:])

    return indices, stack('gt_erased'), stack('gt_added')
