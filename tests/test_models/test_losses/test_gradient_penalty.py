import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample


def sample(erased=None, added=None):
    found = DataSample()
    if erased is not None:
        found.gt_erased, found.gt_added = erased, torch.zeros_like(erased) if added is None else added
    return found


def test_penalty_and_its_gradient_are_those_of_the_formula():
    """log y of a linear softmax classifier has the gradient sum_k w_k - K sum_k y_k w_k with respect to its input."""
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 4, 4, dtype=torch.double, requires_grad=True)
    x = torch.randn(3, 3, 4, 4, dtype=torch.double, requires_grad=True)
    erased = torch.zeros(3, 8, 8, dtype=torch.double)
    erased[0, :4, :4], erased[2, 4:] = 1, 0.5
    added = torch.zeros(8, 8, dtype=torch.double)
    added[:2, :4] = 1
    samples = [sample(erased[0], added), sample(), sample(erased[2])]

    def scores(x):
        return torch.einsum('nchw,kchw->nk', x, weight)

    penalty = MODELS.build(dict(type='GradientPenalty', loss_weight=2.0))
    found = penalty(scores(x), x, samples)

    y = scores(x).softmax(1)
    gradient = weight.sum(0) - 5 * torch.einsum('nk,kchw->nchw', y, weight)
    area = torch.zeros(3, 4, 4, dtype=torch.double)
    area[0, 1, :2], area[2, 2:] = 1, 0.5  # the first row of it was added
    expected = 2 / 3 * (area[:, None] * gradient**2).sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, weight)[0] for value in (found, expected)))


def test_without_corrections_there_is_no_penalty():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    assert MODELS.build(dict(type='GradientPenalty'))(x.flatten(1), x, [sample(), sample()]) == 0
    with pytest.raises(ValueError, match='at least 0'):
        MODELS.build(dict(type='GradientPenalty', loss_weight=-1))
