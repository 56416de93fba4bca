"""Attention Branch Network on ResNeXt-29 8x64d, CIFAR-100: 60,881,666 parameters, 12.13 G multiply-adds.

Authors' page: 17.7 % error at the best epoch (18.3 % without the branch). Their code builds the normalisation before
the class maps here and does not apply it; ours does, as in every other network.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/abn/abn-resnext29-8x64d_cifar100.py
"""

_base_ = ['../_base_/datasets/cifar100_memory_bs128.py', '../_base_/schedules/abn_cifar.py']

model = dict(
    type='AttentionBranchNetwork',
    backbone=dict(type='CIFARResNeXt', depth=29, groups=8, width_per_group=64),
    head=dict(type='AttentionBranchHead', num_classes=100),
)

optim_wrapper = dict(optimizer=dict(weight_decay=5e-4))
