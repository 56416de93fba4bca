"""VGG-att3-concat-pc on CIFAR-10: 19,856,461 parameters.

Attention over layers 7, 10 and 13, scored by <u, l + g>; all together are classified.
Paper: 6.34 % error (as quoted by others, not checked against the print).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att3-pc_cifar10.py
"""

_base_ = './vgg-att2-pc_cifar10.py'

model = dict(
    backbone=dict(out_indices=(0, 1, 2)),
)
