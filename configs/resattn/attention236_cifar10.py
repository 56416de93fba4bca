"""Attention-236 on CIFAR-10: 5,084,794 parameters, 0.57 G multiply-adds.

Paper: 4.14 % error (table 6; 5.1 M).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention236_cifar10.py
"""

_base_ = './attention56_cifar10.py'

model = dict(backbone=dict(arch='attention236-cifar'))
