"""Wide ResNet-16-2 without attention on CIFAR-10: 691,674 parameters, 0.10 G multiply-adds.

One of the networks that docs/compare.md holds side by side.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/compare/wrn16-2_cifar10.py
"""

_base_ = ['../_base_/datasets/cifar10_epochs_bs64.py', '../_base_/schedules/compare_cifar.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(type='CIFARWideResNet', depth=16, widen_factor=2, drop_rate=0.0),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128, loss=dict(type='CrossEntropyLoss')),
)
