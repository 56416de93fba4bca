import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample


def samples(*maps):
    out = [DataSample() for _ in maps]
    for sample, corrected in zip(out, maps):
        if corrected is not None:
            sample.set_field(corrected, 'gt_attention_map')
    return out


def test_the_worked_example_in_one_of_two_images():
    """M = [[.2, .8], [.5, .1]] and M' = [[0, 1], [.5, 0]] are 0.3 apart."""
    loss = MODELS.build(dict(type='AttentionMapLoss', loss_weight=10.0))
    m = torch.tensor([[0.2, 0.8], [0.5, 0.1]]).expand(2, 1, 2, 2).clone().requires_grad_()
    value = loss(m, samples(None, torch.tensor([[0.0, 1.0], [0.5, 0.0]])))
    torch.testing.assert_close(value, torch.tensor(10 * 0.3 / 2))
    value.backward()
    assert (m.grad[0] == 0).all()
    torch.testing.assert_close(m.grad[1, 0], torch.tensor([[0.2, -0.2], [0.0, 0.1]]) / 0.3 * 5)
    # As a pipeline packs it, and of another size.
    torch.testing.assert_close(loss(m, samples(None, torch.ones(1, 6, 8).numpy())), 5 * (1 - m[1]).norm())


def test_maps_that_are_right_and_batches_without_maps_have_gradients():
    loss = MODELS.build(dict(type='AttentionMapLoss'))
    m = torch.rand(1, 1, 2, 2, requires_grad=True)
    for batch in (samples(m.detach()[0, 0]), samples(None)):
        m.grad = None
        value = loss(m, batch)
        value.backward()
        assert value == 0 and (m.grad == 0).all()


def test_wrong_maps_and_mixed_images_are_named():
    loss = MODELS.build(dict(type='AttentionMapLoss'))
    m = torch.rand(2, 1, 2, 2)
    with pytest.raises(ValueError, match=r'gt_attention_map is .* not \(3, 4, 4\)'):
        loss(m, samples(torch.ones(3, 4, 4), None))
    mixed = samples(torch.ones(4, 4), None)
    for sample, score in zip(mixed, ([1.0, 0.0], [0.3, 0.7])):
        sample.set_gt_score(torch.tensor(score))
    with pytest.raises(ValueError, match='Remove mixup and cutmix'):
        loss(m, mixed)
