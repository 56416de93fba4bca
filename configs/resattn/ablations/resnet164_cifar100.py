"""ResNet-164, the baseline without attention modules, on CIFAR-100: 1,726,388 parameters, 0.25 G multiply-adds.

Paper: 24.33 % error (table 6; 1.7 M).
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/ablations/resnet164_cifar100.py
"""

_base_ = '../attention56_cifar100.py'

model = dict(backbone=dict(arch='resnet164-cifar'))
