"""Wide ResNet-16-2 under Learn To Pay Attention on CIFAR-10: 717,722 parameters, 0.10 G multiply-adds.

Attention over the last two stages, scored by <l, g>; both together are classified.
One of the networks that docs/compare.md holds side by side.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/compare/pay-wrn16-2_cifar10.py
"""

_base_ = './wrn16-2_cifar10.py'

model = dict(
    backbone=dict(out_indices=(1, 2)),
    neck=dict(
        _delete_=True, type='PayAttention', in_channels=(64, 128), levels=(0, 1), score='dp', global_channels=128
    ),
    head=dict(_delete_=True, type='PayAttentionHead', num_classes=10, in_channels=(64, 128)),
)
