"""Attention Branch Network on Attention-56, CIFAR-100: 1,810,354 parameters, 0.29 G multiply-adds.

No paper has this combination.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/abn/abn-attention56_cifar100.py
"""

_base_ = ['../_base_/datasets/cifar100_memory_bs128.py', '../_base_/schedules/abn_cifar.py']

from mmresattn.models import attention_branch_network  # noqa: E402

model = attention_branch_network(dict(type='ResidualAttentionNet', arch='attention56-cifar'), num_classes=100)
