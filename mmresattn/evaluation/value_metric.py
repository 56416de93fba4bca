"""Errors of predicted numbers."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from torch import Tensor


def value_errors(predicted: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Mean absolute error and coefficient of determination.

    Args:
        predicted (Tensor): (N, V).
        targets (Tensor): (N, V).

    Returns:
        Dict[str, Tensor]: ``MAE`` and ``R2``, (V,) each. R2 is 1 minus the squared errors over the squared distances
        from the mean: 1 is perfect, 0 as good as the mean of the targets; NaN if all targets are the same.
    """
    squares = (targets - targets.mean(0)).square().sum(0)
    ratio = (targets - predicted).square().sum(0) / squares
    return dict(MAE=(predicted - targets).abs().mean(0), R2=torch.where(squares > 0, 1 - ratio, torch.nan))


@METRICS.register_module()
class ValueMetric(BaseMetric):
    """The :func:`value_errors` of a data set, from ``pred_value`` and ``gt_value`` of the data samples.

    Of several values each has its number from 0 in the name: ``MAE_0``. Without a number stands their mean.
    """

    default_prefix = 'value'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Take the values of a batch."""
        for sample in data_samples:
            pair = sample['pred_value'], sample['gt_value']
            self.results.append(tuple(torch.as_tensor(values).double().cpu().reshape(-1) for values in pair))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Errors over all images."""
        errors = value_errors(*(torch.stack(values) for values in zip(*results)))
        found = {name: values.mean().item() for name, values in errors.items()}
        for name, values in errors.items():
            if len(values) > 1:
                found |= {f'{name}_{i}': value for i, value in enumerate(values.tolist())}
        return found
