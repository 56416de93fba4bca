"""Attention Branch Network on ResNet-20, CIFAR-100: 501,650 parameters, 0.10 G multiply-adds.

The authors' page has no figure for it.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/abn/abn-resnet20_cifar100.py
"""

_base_ = ['../_base_/datasets/cifar100_memory_bs128.py', '../_base_/schedules/abn_cifar.py']

model = dict(
    type='AttentionBranchNetwork',
    backbone=dict(type='CIFARResNet', depth=20),
    head=dict(type='AttentionBranchHead', num_classes=100),
)
