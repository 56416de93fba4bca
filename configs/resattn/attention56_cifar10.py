"""Attention-56 on CIFAR-10: 1,030,394 parameters, 0.12 G multiply-adds.

Paper: 5.52 % error (table 1).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention56_cifar10.py
"""

_base_ = [
    '../_base_/datasets/cifar10_memory_bs64.py',
    '../_base_/schedules/resattn_cifar.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResidualAttentionNet', arch='attention56-cifar'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=256, loss=dict(type='CrossEntropyLoss')),
)
