"""The break: MMPretrain's backbones draw up their drop-path rates as a tensor and read them, even if they have none.

So none of these can be built on the meta device, where tensors have no values and shapes and parameters are counted for
nothing.
"""

from functools import wraps

import torch
from mmpretrain.models.backbones.resnet import ResNet
from torch.overrides import TorchFunctionMode


class LinspaceOnCPU(TorchFunctionMode):
    """In this context ``torch.linspace`` gives numbers, whatever the default device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.linspace:
            kwargs = {**(kwargs or {}), 'device': 'cpu'}
        return func(*args, **(kwargs or {}))


def allow_meta_resnets() -> None:
    """Let MMPretrain's ResNet and its subclasses be built under ``torch.device('meta')``."""
    init = ResNet.__init__

    @wraps(init)
    def __init__(self, *args, **kwargs):
        with LinspaceOnCPU():
            init(self, *args, **kwargs)

    ResNet.__init__ = __init__
