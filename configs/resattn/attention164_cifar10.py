"""Attention-164 on CIFAR-10: 3,463,034 parameters, 0.39 G multiply-adds.

Paper: 4.31 % error (table 3).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention164_cifar10.py
"""

_base_ = './attention56_cifar10.py'

model = dict(backbone=dict(arch='attention164-cifar'))
