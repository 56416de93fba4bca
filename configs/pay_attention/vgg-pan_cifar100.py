"""VGG-PAN on CIFAR-100: 24,745,126 parameters.

The baseline of progressive attention: layer 10 is gated, layer 13 attended to.
Paper: 24.35 % error (as quoted by others, not checked against the print).
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-pan_cifar100.py
"""

_base_ = './vgg-att2-pc_cifar100.py'

model = dict(
    backbone=dict(arch='vgg-pan', out_indices=(2,)),
)
