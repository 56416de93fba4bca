"""VGG-PAN on CIFAR-10: 24,698,956 parameters.

The baseline of progressive attention: layer 10 is gated, layer 13 attended to.
Paper: 6.29 % error (as quoted by others, not checked against the print).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-pan_cifar10.py
"""

_base_ = './vgg-att2-pc_cifar10.py'

model = dict(
    backbone=dict(arch='vgg-pan', out_indices=(2,)),
)
