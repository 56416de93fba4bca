"""AttentionNeXt-92 on ImageNet. See configs/resattn/attentionnext92_imagenet.py."""

from mmengine.config import read_base

with read_base():
    from .attention56_imagenet import *

model.merge(dict(backbone=dict(arch='attentionnext92')))
