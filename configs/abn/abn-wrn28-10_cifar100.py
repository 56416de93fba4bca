"""Attention Branch Network on Wide ResNet-28-10, CIFAR-100: 64,475,666 parameters, 12.39 G multiply-adds.

Authors' page: 18.1 % error at the best epoch (18.9 % without the branch).
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/abn/abn-wrn28-10_cifar100.py
"""

_base_ = ['../_base_/datasets/cifar100_memory_bs128.py', '../_base_/schedules/abn_cifar.py']

model = dict(
    type='AttentionBranchNetwork',
    backbone=dict(type='CIFARWideResNet', depth=28, widen_factor=10, drop_rate=0.3),
    head=dict(type='AttentionBranchHead', num_classes=100),
)

optim_wrapper = dict(optimizer=dict(weight_decay=5e-4))
param_scheduler = dict(milestones=[60, 120, 160], gamma=0.2)
train_cfg = dict(max_epochs=200)
