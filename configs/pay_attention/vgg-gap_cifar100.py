"""VGG-GAP on CIFAR-100: 14,774,436 parameters.

The baseline for class activation maps: global average pooling after layer 13.
Paper: 31.77 % error (as quoted by others, not checked against the print).
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-gap_cifar100.py
"""

_base_ = './vgg-att2-pc_cifar100.py'

# The authors' code for it was not published; the layers are those that their class activation maps read.
model = dict(
    type='ImageClassifier',
    backbone=dict(arch='vgg-gap', out_indices=(2,)),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(
        _delete_=True, type='LinearClsHead', num_classes=100, in_channels=512, loss=dict(type='CrossEntropyLoss')
    ),
)
