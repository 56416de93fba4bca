"""Attention-452 on CIFAR-10: 8,511,994 parameters, 0.96 G multiply-adds.

Paper: 3.90 % error (table 6; 8.6 M).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention452_cifar10.py
"""

_base_ = './attention56_cifar10.py'

model = dict(backbone=dict(arch='attention452-cifar'))
