"""Wide ResNet-16-2 with a non-local block on CIFAR-10: 700,090 parameters, 0.10 G multiply-adds.

One block, embedded Gaussian, after the first unit of the stage of 16x16 positions.
One of the networks that docs/compare.md holds side by side.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/compare/nonlocal-wrn16-2_cifar10.py
"""

_base_ = './wrn16-2_cifar10.py'

model = dict(
    backbone=dict(
        attention=dict(type='NonLocalAttention', stages=(False, (0,), False), norm_cfg=dict(type='BN')),
    )
)
