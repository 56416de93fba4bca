"""VGG-att2-concat-dp on CIFAR-10: 19,719,754 parameters.

Attention over layers 10 and 13, scored by <l, g>; both together are classified.
A port by others reports 5.21 % error.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att2-dp_cifar10.py
"""

_base_ = './vgg-att2-pc_cifar10.py'

model = dict(neck=dict(score='dp'))
