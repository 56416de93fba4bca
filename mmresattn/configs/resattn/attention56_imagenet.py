"""Attention-56 on ImageNet. See configs/resattn/attention56_imagenet.py."""

from mmengine.config import read_base
from mmpretrain.models import CrossEntropyLoss, GlobalAveragePooling, ImageClassifier, LinearClsHead

from mmresattn.models import ResidualAttentionNet

with read_base():
    from .._base_.imagenet_bs32 import *
    from .._base_.resattn_imagenet import *

model = dict(
    type=ImageClassifier,
    backbone=dict(type=ResidualAttentionNet, arch='attention56'),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=1000, in_channels=2048, loss=dict(type=CrossEntropyLoss), topk=(1, 5)),
)
