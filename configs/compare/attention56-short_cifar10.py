"""Attention-56 on CIFAR-10: 1,030,394 parameters, 0.12 G multiply-adds.

One of the networks that docs/compare.md holds side by side.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/compare/attention56-short_cifar10.py
"""

_base_ = ['../_base_/datasets/cifar10_epochs_bs64.py', '../_base_/schedules/compare_cifar.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResidualAttentionNet', arch='attention56-cifar'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=256, loss=dict(type='CrossEntropyLoss')),
)
