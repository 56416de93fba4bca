"""Attention-56 on CIFAR-100: 1,053,524 parameters, 0.12 G multiply-adds.

The paper has no figure for it.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention56_cifar100.py
"""

_base_ = [
    '../_base_/datasets/cifar100_bs64.py',
    '../_base_/schedules/resattn_cifar.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResidualAttentionNet', arch='attention56-cifar'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=100, in_channels=256, loss=dict(type='CrossEntropyLoss'), topk=(1, 5)),
)
