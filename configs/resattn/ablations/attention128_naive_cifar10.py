"""Attention-128 with naive attention learning on CIFAR-10: 2,652,154 parameters, 0.30 G multiply-adds.

Paper: 5.57 % error (table 3).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/ablations/attention128_naive_cifar10.py
"""

_base_ = '../attention128_cifar10.py'

model = dict(backbone=dict(attention_residual_learning=False))
