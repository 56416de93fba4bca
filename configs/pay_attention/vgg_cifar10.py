"""VGG on CIFAR-10: 14,991,946 parameters.

The baseline without attention.
Paper: 7.77 % error (as quoted by others, not checked against the print).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg_cifar10.py
"""

_base_ = './vgg-att2-pc_cifar10.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(arch='vgg', out_indices=()),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),  # of the 1x1 of the global vector
    head=dict(in_channels=(512,)),
)
