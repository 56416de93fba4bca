"""Attention-236 on CIFAR-100: 5,107,924 parameters, 0.57 G multiply-adds.

Paper: 21.16 % error (table 6; 5.1 M).
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention236_cifar100.py
"""

_base_ = './attention56_cifar100.py'

model = dict(backbone=dict(arch='attention236-cifar'))
