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
                [64, 64, 128, 128, 256, 256, 256, ('max', 2)],
                [512, 512, 512, ('max', 2)],
                [512, 512, 512, ('max', 2)],
            ),
            tail=[512, ('max', 2), 512],
        ),
    ),
)
