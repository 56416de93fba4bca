import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


def test_forward_in_bfloat16_update_in_float32():
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    reference = nn.Linear(8, 4)
    reference.load_state_dict(model.state_dict())
    wrapper = OPTIM_WRAPPERS.build(
        dict(type='AutocastOptimWrapper', optimizer=torch.optim.SGD(model.parameters(), lr=0.5), accumulative_counts=2)
    )
    wrapper.initialize_count_status(model, 0, 4)
    images = torch.randn(2, 16, 8)
    for batch in images:  # two halves of one step
        with wrapper.optim_context(model):
            output = model(batch)
            assert output.dtype == torch.bfloat16
        wrapper.update_params(output.float().square().mean())
    assert not torch.is_autocast_enabled('cpu')
    before = reference.weight.detach().clone()
    reference(images.flatten(0, 1)).square().mean().backward()
    expected = before - 0.5 * reference.weight.grad
    assert model.weight.dtype == torch.float32
    change, right = (w.detach().flatten() - before.flatten() for w in (model.weight, expected))
    assert torch.dot(change, right) / (change.norm() * right.norm()) > 0.999
    assert change.norm() == pytest.approx(right.norm().item(), rel=0.02)  # 8 bits of mantissa
    assert (change - right).abs().max() > 0  # and truly not float32
