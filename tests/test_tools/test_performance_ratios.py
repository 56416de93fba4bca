"""What was gained stays gained: ratios of bytes, which no busy machine changes, beside stored ones."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from mmresattn.models import ResidualAttentionNet
from mmresattn.models.layers import norm_relu_conv

MARGIN = 1.1
# Of Attention-56 for CIFAR, over the network of plain layers in eager mode.
STORED = {
    'bytes kept for the backward pass': 0.55,
    'bytes kept with checkpointing': 0.17,
}


def kept(model):
    """Bytes that autograd keeps of a forward pass, but for the parameters."""
    own, found = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(torch.randn(2, 3, 32, 32))
    assert out[0].requires_grad
    return sum(found.values())


@pytest.fixture(scope='module')
def ratios():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norm_relu_conv, '_is_plain', lambda *_: False)
        plain = kept(ResidualAttentionNet('attention56-cifar').train())
    return {
        'bytes kept for the backward pass': kept(ResidualAttentionNet('attention56-cifar').train()) / plain,
        'bytes kept with checkpointing': kept(ResidualAttentionNet('attention56-cifar', with_cp=True).train()) / plain,
    }


@pytest.mark.parametrize('name', STORED)
def test_no_ratio_is_worse_than_the_stored_one(ratios, name):
    print(f'{name}: {ratios[name]:.3f}')
    assert ratios[name] <= MARGIN * STORED[name]
