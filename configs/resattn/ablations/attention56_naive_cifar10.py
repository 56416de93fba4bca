"""Attention-56 with naive attention learning on CIFAR-10: 1,030,394 parameters, 0.12 G multiply-adds.

Paper: 5.89 % error (table 3).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/ablations/attention56_naive_cifar10.py
"""

_base_ = '../attention56_cifar10.py'

model = dict(backbone=dict(attention_residual_learning=False))
