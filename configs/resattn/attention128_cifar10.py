"""Attention-128 on CIFAR-10: 2,652,154 parameters, 0.30 G multiply-adds.

Paper: 4.44 % error (table 3).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention128_cifar10.py
"""

_base_ = './attention56_cifar10.py'

model = dict(backbone=dict(arch='attention128-cifar'))
