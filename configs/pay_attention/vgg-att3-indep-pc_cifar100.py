"""VGG-att3-indep-pc on CIFAR-100: 19,971,951 parameters.

Attention over layers 7, 10 and 13, scored by <u, l + g>; each is classified, scores are added.
The paper has no figure that is known here.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att3-indep-pc_cifar100.py
"""

_base_ = './vgg-att2-pc_cifar100.py'

model = dict(
    backbone=dict(out_indices=(0, 1, 2)),
    head=dict(combine='sum'),
)
