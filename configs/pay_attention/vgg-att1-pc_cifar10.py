"""VGG-att1-pc on CIFAR-10: 19,714,123 parameters.

Attention over layer 13, scored by <u, l + g>.
The paper has no figure that is known here.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att1-pc_cifar10.py
"""

_base_ = './vgg-att2-pc_cifar10.py'

model = dict(
    backbone=dict(out_indices=(2,)),
)
