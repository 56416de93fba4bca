"""What was gained stays gained: ratios of bytes and operations, which no busy machine changes, beside stored ones."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from mmresattn.models import ResidualAttentionNet
from mmresattn.models.fuse import fuse
from mmresattn.models.layers import norm_relu_conv

MARGIN = 1.1
# Of Attention-56 for CIFAR, over the network of plain layers in eager mode.
STORED = {
    'bytes kept for the backward pass': 0.55,
    'bytes kept with checkpointing': 0.17,
    'operations of a fused forward pass': 0.71,
    'normalisations of a fused forward pass': 0.35,
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


def operations(model):
    """Names of the operations that a forward pass runs and that write something."""
    names = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if not function.is_view:
                names.append(function.name())
            return function(*args, **kwargs or {})

    with torch.no_grad(), Count():
        model(torch.randn(1, 3, 32, 32))
    return names


@pytest.fixture(scope='module')
def ratios():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norm_relu_conv, '_is_plain', lambda *_: False)
        plain = kept(ResidualAttentionNet('attention56-cifar').train())
    model = ResidualAttentionNet('attention56-cifar').eval()
    eager, fused = operations(model), operations(fuse(model))
    norms = [sum('batch_norm' in name for name in names) for names in (fused, eager)]
    return {
        'bytes kept for the backward pass': kept(ResidualAttentionNet('attention56-cifar').train()) / plain,
        'bytes kept with checkpointing': kept(ResidualAttentionNet('attention56-cifar', with_cp=True).train()) / plain,
        'operations of a fused forward pass': len(fused) / len(eager),
        'normalisations of a fused forward pass': norms[0] / norms[1],
    }


@pytest.mark.parametrize('name', STORED)
def test_no_ratio_is_worse_than_the_stored_one(ratios, name):
    print(f'{name}: {ratios[name]:.3f}')
    assert ratios[name] <= MARGIN * STORED[name]
