"""ResNet-164, the baseline without attention modules, on CIFAR-10: 1,703,258 parameters, 0.25 G multiply-adds.

Paper: 5.46 % error (table 6; 1.7 M).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/ablations/resnet164_cifar10.py
"""

_base_ = '../attention56_cifar10.py'

model = dict(backbone=dict(arch='resnet164-cifar'))
