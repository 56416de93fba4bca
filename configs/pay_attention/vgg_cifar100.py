"""VGG on CIFAR-100: 15,038,116 parameters.

The baseline without attention.
Paper: 30.62 % error, as a port quotes it.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg_cifar100.py
"""

_base_ = './vgg-att2-pc_cifar100.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(arch='vgg', out_indices=()),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),  # of the 1x1 of the global vector
    head=dict(in_channels=(512,)),
)
