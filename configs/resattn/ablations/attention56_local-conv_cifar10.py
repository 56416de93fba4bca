"""Attention-56 on CIFAR-10, its masks local convolutions of full width: 1,042,490 parameters, 0.15 G multiply-adds.

Paper: 6.48 % error (table 4).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/ablations/attention56_local-conv_cifar10.py
"""

_base_ = '../attention56_cifar10.py'

model = dict(backbone=dict(mask='local_conv'))
