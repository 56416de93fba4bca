"""Wide ResNet-16-2 under Learn To Pay Attention on CIFAR-10: 701,404 parameters, 0.10 G multiply-adds.

Attention over the last two stages, scored by <u, l + g>; both together are classified. u starts small, so that the
attention is even at first: from the authors' N(0, 2) it would look at one position of these features.
One of the networks that docs/compare.md holds side by side.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/compare/pay-wrn16-2_cifar10.py
"""

_base_ = './wrn16-2_cifar10.py'

model = dict(
    type='PayAttentionNetwork',
    backbone=dict(out_indices=(1, 2)),
    neck=dict(
        _delete_=True,
        type='PayAttention',
        score='pc',
        init_cfg=dict(type='Normal', layer='Conv2d', std=0.01),
    ),
    head=dict(_delete_=True, type='PayAttentionHead', num_classes=10),
)
