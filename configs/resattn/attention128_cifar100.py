"""Attention-128 on CIFAR-100: 2,675,284 parameters, 0.30 G multiply-adds.

The paper has no figure for it.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention128_cifar100.py
"""

_base_ = './attention56_cifar100.py'

model = dict(backbone=dict(arch='attention128-cifar'))
