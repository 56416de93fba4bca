"""Attention-92 with naive attention learning on CIFAR-10: 1,841,274 parameters, 0.21 G multiply-adds.

Paper: 5.35 % error (table 3).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/ablations/attention92_naive_cifar10.py
"""

_base_ = '../attention92_cifar10.py'

model = dict(backbone=dict(attention_residual_learning=False))
