"""Attention-92 on CIFAR-100: 1,864,404 parameters, 0.21 G multiply-adds.

Paper: 21.71 % error (table 6; 1.9 M).
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention92_cifar100.py
"""

_base_ = './attention56_cifar100.py'

model = dict(backbone=dict(arch='attention92-cifar'))
