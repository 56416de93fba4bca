"""Attention-augmented Wide ResNet-16-2 on CIFAR-10: 682,554 parameters, 0.12 G multiply-adds.

In the first convolution of every unit of the stages of 16x16 and 8x8 positions: a quarter of the channels, 4 heads.
One of the networks that docs/compare.md holds side by side.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/compare/aa-wrn16-2_cifar10.py
"""

_base_ = './wrn16-2_cifar10.py'

augmented = dict(type='AttentionAugmentedConv', heads=4, kappa=0.25, upsilon=0.25)
model = dict(
    backbone=dict(
        attention=[
            dict(stages=(False, True, False), size=16, **augmented),
            dict(stages=(False, False, True), size=8, **augmented),
        ],
    )
)
