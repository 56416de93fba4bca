"""VGG-GAP on CIFAR-10: 14,728,266 parameters.

The baseline for class activation maps: global average pooling after layer 13.
Paper: 9.87 % error (as quoted by others, not checked against the print).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-gap_cifar10.py
"""

_base_ = './vgg-att2-pc_cifar10.py'

# The authors' code for it was not published; the layers are those that their class activation maps read.
model = dict(
    type='ImageClassifier',
    backbone=dict(arch='vgg-gap', out_indices=(2,)),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(_delete_=True, type='LinearClsHead', num_classes=10, in_channels=512, loss=dict(type='CrossEntropyLoss')),
)
