"""Attention-56 with spatial attention (f3) on CIFAR-10: 1,030,394 parameters, 0.12 G multiply-adds.

Paper: 6.33 % error (table 1).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/ablations/attention56_spatial_cifar10.py
"""

_base_ = '../attention56_cifar10.py'

model = dict(backbone=dict(attention='spatial'))
