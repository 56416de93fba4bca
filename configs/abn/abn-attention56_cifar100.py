"""Attention Branch Network on Attention-56, CIFAR-100: 1,810,354 parameters, 0.29 G multiply-adds.

No paper has this combination.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/abn/abn-attention56_cifar100.py
"""

_base_ = ['../_base_/datasets/cifar100_memory_bs128.py', '../_base_/schedules/abn_cifar.py']

model = dict(
    type='AttentionBranchNetwork',
    backbone=dict(type='ResidualAttentionNet', arch='attention56-cifar'),
    head=dict(type='AttentionBranchHead', num_classes=100),
)
