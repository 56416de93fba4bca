"""VGG-att2-concat-dp on CIFAR-100: 19,812,004 parameters.

Attention over layers 10 and 13, scored by <l, g>; both together are classified.
A port by others reports 22.36 % error.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att2-dp_cifar100.py
"""

_base_ = './vgg-att2-pc_cifar100.py'

model = dict(neck=dict(score='dp'))
