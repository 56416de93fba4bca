"""VGG-att1-dp on CIFAR-10: 19,713,610 parameters.

Attention over layer 13, scored by <l, g>.
The paper has no figure that is known here.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att1-dp_cifar10.py
"""

_base_ = './vgg-att2-pc_cifar10.py'

model = dict(
    backbone=dict(out_indices=(2,)),
    neck=dict(score='dp'),
)
