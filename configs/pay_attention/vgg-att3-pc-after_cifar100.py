"""VGG-att3-concat-pc of a port, with attention after the poolings, on CIFAR-100: 19,995,303 parameters.

As vgg-att3-pc-before_cifar100.py, but local features are pooled before they are attended to.
A port by others reports 22.92 % error.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att3-pc-after_cifar100.py
"""

_base_ = './vgg-att3-pc-before_cifar100.py'

model = dict(
    backbone=dict(
        arch=dict(
            stages=(
                'conv64 conv64 conv128 conv128 conv256 conv256 conv256 max2',
                'conv512 conv512 conv512 max2',
                'conv512 conv512 conv512 max2',
            ),
            tail='conv512 max2 conv512',
        ),
    ),
)
