"""VGG-att2-concat-pc with averaged gradients on CIFAR-10: 19,720,780 parameters.

Attention over layers 10 and 13, scored by <u, l + g>; both together are classified.
Paper: 5.23 % error (as quoted by others, not checked against the print).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att2-pc-averaged_cifar10.py
"""

_base_ = './vgg-att2-pc_cifar10.py'

# Gradients as in the authors' training: where a feature feeds several layers, their mean instead of their sum.
model = dict(backbone=dict(average_gradients=True), neck=dict(average_gradients=True))
