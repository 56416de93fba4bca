"""Attention-56 on scikit-learn's handwritten digits. See configs/resattn/attention56_digits.py."""

from mmengine.config import read_base
from mmengine.hooks import EMAHook
from mmengine.optim import CosineAnnealingLR, LinearLR
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LabelSmoothLoss, LinearClsHead
from torch.optim import SGD

from mmresattn.models import ResidualAttentionNet

with read_base():
    from .._base_.default_runtime import *
    from .._base_.digits_bs32 import *

model = dict(
    type=ImageClassifier,
    backbone=dict(type=ResidualAttentionNet, arch='attention56-cifar'),
    neck=dict(type=GlobalAveragePooling),
    head=dict(
        type=LinearClsHead,
        num_classes=10,
        in_channels=256,
        loss=dict(type=LabelSmoothLoss, label_smooth_val=0.1),
    ),
)

epochs = 12
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4))
param_scheduler = [
    dict(type=LinearLR, start_factor=0.04, end=3, convert_to_iter_based=True),
    dict(type=CosineAnnealingLR, T_max=epochs - 3, begin=3, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=3)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=32)

default_hooks.merge(dict(logger=dict(interval=10)))
custom_hooks.append(dict(type=EMAHook, momentum=0.01, update_buffers=True))
