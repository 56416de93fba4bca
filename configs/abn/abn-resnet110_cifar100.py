"""Attention Branch Network on ResNet-110, CIFAR-100: 3,056,786 parameters, 0.58 G multiply-adds.

Authors' page: 22.5 % error at the best epoch (24.1 % without the branch). As there, its blocks are bottlenecks, so that
it has 164 layers.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/abn/abn-resnet110_cifar100.py
"""

_base_ = ['../_base_/datasets/cifar100_memory_bs128.py', '../_base_/schedules/abn_cifar.py']

model = dict(
    type='AttentionBranchNetwork',
    backbone=dict(type='CIFARResNet', depth=110),
    head=dict(type='AttentionBranchHead', num_classes=100),
)
