"""Wide ResNet-16-2 with Squeeze-and-Excitation on CIFAR-10: 703,450 parameters, 0.10 G multiply-adds.

On the residual branch of every unit.
One of the networks that docs/compare.md holds side by side.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/compare/se-wrn16-2_cifar10.py
"""

_base_ = './wrn16-2_cifar10.py'

model = dict(backbone=dict(attention=dict(type='SqueezeExcitation', ratio=8)))
