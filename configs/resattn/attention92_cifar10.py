"""Attention-92 on CIFAR-10: 1,841,274 parameters, 0.21 G multiply-adds.

Paper: 4.99 % error (table 6; 1.9 M).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention92_cifar10.py
"""

_base_ = './attention56_cifar10.py'

model = dict(backbone=dict(arch='attention92-cifar'))
