"""Attention Branch Network on Wide ResNet-16-2, CIFAR-10: 1,218,606 parameters, 0.24 G multiply-adds.

One of the networks that docs/compare.md holds side by side.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/compare/abn-wrn16-2_cifar10.py
"""

_base_ = ['../_base_/datasets/cifar10_epochs_bs64.py', '../_base_/schedules/compare_cifar.py']

model = dict(
    type='AttentionBranchNetwork',
    backbone=dict(type='CIFARWideResNet', depth=16, widen_factor=2, drop_rate=0.0),
    head=dict(type='AttentionBranchHead', num_classes=10),
)
