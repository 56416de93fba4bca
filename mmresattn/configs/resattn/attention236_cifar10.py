"""Attention-236 on CIFAR-10. See configs/resattn/attention236_cifar10.py."""

from mmengine.config import read_base

with read_base():
    from .attention56_cifar10 import *

model.merge(dict(backbone=dict(arch='attention236-cifar')))
