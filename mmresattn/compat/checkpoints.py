"""The break: what MMEngine <= 0.10 does with checkpoints.

It unpickles downloads without a guard, executes the text of a config in a checkpoint that is resumed, cannot read its
own checkpoints on PyTorch >= 2.6, knows no safetensors, and trains on from random weights where a file does not fit.
"""

from functools import wraps

import torch
from mmengine.model import PretrainedInit, update_init_info
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from ..weights.fitting import load_weights
from ..weights.loader import read_checkpoint, read_content
from ..weights.safe_types import SAFE_TYPES


def guard_checkpoints() -> None:
    """Let MMEngine read every checkpoint by :func:`~mmresattn.weights.read_checkpoint`, from any address.

    Its initialiser ``Pretrained`` refuses a file that does not fit, as ``load_from`` does.
    """
    torch.serialization.add_safe_globals(SAFE_TYPES)  # for torch.load itself
    for prefix, load in CheckpointLoader._schemes.items():
        if load.__module__ == 'mmengine.runner.checkpoint':
            CheckpointLoader._schemes[prefix] = _guarded(load)
    PretrainedInit.__call__ = initialize


def _guarded(load):
    @wraps(load)  # MMEngine logs its name
    def read(filename: str, map_location=None, **kwargs) -> dict:
        return read_content(filename, map_location)

    return read


def initialize(self: PretrainedInit, module: nn.Module) -> None:
    """What ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)`` does.

    A child of the module of which the file has nothing, while it has others, keeps its own initialisation. The log says
    so.

    Raises:
        CheckpointError: If the file is one of another network, or has none under ``prefix``.
    """
    checkpoint = read_checkpoint(self.checkpoint, self.map_location)
    how = 'Give the checkpoint of this network, and as prefix the name of this part in it.'
    prefix = f'{self.prefix.rstrip(".")}.' if self.prefix else ''
    names = [name.removeprefix(prefix) for name in checkpoint['state_dict'] if name.startswith(prefix)]
    given = {name.partition('.')[0] for name in names}
    children = [name for name, child in module.named_children() if child.state_dict()]
    new = [name for name in children if name not in given] if given.intersection(children) else ()
    load_weights(module, checkpoint, self.checkpoint, prefix=prefix, new=new, fine_tune=True, how=how)
    if hasattr(module, '_params_init_info'):
        update_init_info(module, init_info=self._get_init_info())
