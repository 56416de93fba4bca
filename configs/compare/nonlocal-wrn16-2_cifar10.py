"""Wide ResNet-16-2 with non-local blocks on CIFAR-10: 774,938 parameters, 0.11 G multiply-adds.

After every unit of the stages of 16x16 and 8x8 positions.
One of the networks that docs/compare.md holds side by side.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/compare/nonlocal-wrn16-2_cifar10.py
"""

_base_ = './wrn16-2_cifar10.py'

model = dict(
    backbone=dict(
        attention=dict(type='NonLocalAttention', stages=(False, True, True), norm_cfg=dict(type='BN')),
    )
)
