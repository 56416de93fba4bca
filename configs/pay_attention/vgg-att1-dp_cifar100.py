"""VGG-att1-dp on CIFAR-100: 19,759,780 parameters.

Attention over layer 13, scored by <l, g>.
The paper has no figure that is known here.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att1-dp_cifar100.py
"""

_base_ = './vgg-att2-pc_cifar100.py'

model = dict(
    backbone=dict(out_indices=(2,)),
    neck=dict(score='dp'),
)
