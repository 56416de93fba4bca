"""Attention-164 with naive attention learning on CIFAR-10: 3,463,034 parameters, 0.39 G multiply-adds.

Paper: 7.18 % error (table 3).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/ablations/attention164_naive_cifar10.py
"""

_base_ = '../attention164_cifar10.py'

model = dict(backbone=dict(attention_residual_learning=False))
