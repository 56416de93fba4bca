"""VGG-att3-concat-pc of a port, with attention before the poolings, on CIFAR-100: 19,995,303 parameters.

The network of SaoYan's LearnToPayAttention, so that its trained weights are exact here. It differs from
vgg-att3-pc-up_cifar100.py, the authors' network: no dropout in the backbone, BatchNorm with eps=1e-5, and attended
features that go to the linear layer as they are.
A port by others reports 22.62 % error.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att3-pc-before_cifar100.py
"""

_base_ = './vgg-att3-pc-up_cifar100.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            base='vgg-att',
            stages=(
                [64, 64, 128, 128, 256, 256, 256],
                [('max', 2), 512, 512, 512],
                [('max', 2), 512, 512, 512],
            ),
            tail=[('max', 2), 512, ('max', 2), 512],
        ),
        norm_cfg=dict(type='BN', eps=1e-5),
    ),
    head=dict(norm=False),
)
data_preprocessor = dict(mean=[129.3105, 124.1085, 112.404], std=[68.2125, 65.4075, 70.4055])
