"""Attention-164 on CIFAR-100: 3,486,164 parameters, 0.39 G multiply-adds.

The paper has no figure for it.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention164_cifar100.py
"""

_base_ = './attention56_cifar100.py'

model = dict(backbone=dict(arch='attention164-cifar'))
