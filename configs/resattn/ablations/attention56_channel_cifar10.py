"""Attention-56 with channel attention (f2) on CIFAR-10: 1,030,394 parameters, 0.12 G multiply-adds.

Paper: 6.24 % error (table 1).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/ablations/attention56_channel_cifar10.py
"""

_base_ = '../attention56_cifar10.py'

model = dict(backbone=dict(attention='channel'))
