"""Attention Branch Network on DenseNet-BC (L=100, k=12), CIFAR-100: 1,122,498 parameters, 0.31 G multiply-adds.

Authors' page: 21.6 % error at the best epoch (22.5 % without the branch).
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/abn/abn-densenet100-12_cifar100.py
"""

_base_ = ['../_base_/datasets/cifar100_memory_bs128.py', '../_base_/schedules/abn_cifar.py']

model = dict(
    type='AttentionBranchNetwork',
    backbone=dict(type='CIFARDenseNet', depth=100, growth_rate=12),
    head=dict(type='AttentionBranchHead', num_classes=100),
)

train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=64)
