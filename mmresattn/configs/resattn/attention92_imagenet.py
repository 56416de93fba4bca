"""Attention-92 on ImageNet, tested at 320. See configs/resattn/attention92_imagenet.py."""

from mmengine.config import read_base

with read_base():
    from .attention56_imagenet import *

model.merge(dict(backbone=dict(arch='attention92')))

test_pipeline = [
    dict(type=LoadCheckedImage),
    dict(type=ResizeEdge, scale=320, edge='short'),
    dict(type=CenterCrop, crop_size=320),
    dict(type=PackInputs),
]
val_dataloader.merge(dict(dataset=dict(pipeline=test_pipeline)))
test_dataloader = val_dataloader
