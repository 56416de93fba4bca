"""VGG-att3-concat-pc on CIFAR-100: 19,971,751 parameters.

Attention over layers 7, 10 and 13, scored by <u, l + g>; all together are classified.
Paper: 22.97 % error, as a port quotes it.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att3-pc_cifar100.py
"""

_base_ = './vgg-att2-pc_cifar100.py'

model = dict(
    backbone=dict(out_indices=(0, 1, 2)),
)
