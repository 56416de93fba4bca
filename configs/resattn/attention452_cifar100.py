"""Attention-452 on CIFAR-100: 8,535,124 parameters, 0.96 G multiply-adds.

Paper: 20.45 % error (table 6; 8.6 M).
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention452_cifar100.py
"""

_base_ = './attention56_cifar100.py'

model = dict(backbone=dict(arch='attention452-cifar'))
