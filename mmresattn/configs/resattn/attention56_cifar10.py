"""Attention-56 on CIFAR-10. See configs/resattn/attention56_cifar10.py."""

from mmengine.config import read_base
from mmpretrain.models import CrossEntropyLoss, GlobalAveragePooling, ImageClassifier, LinearClsHead

from mmresattn.models import ResidualAttentionNet

with read_base():
    from .._base_.cifar10_memory_bs64 import *
    from .._base_.resattn_cifar import *

model = dict(
    type=ImageClassifier,
    backbone=dict(type=ResidualAttentionNet, arch='attention56-cifar'),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=256, loss=dict(type=CrossEntropyLoss)),
)
