"""VGG on SVHN: 14,991,946 parameters.

The baseline without attention.
The paper has no figure that is known here.
Data: data/svhn/{train,test}/<class>/*, or under $MMRESATTN_DATA; train without the extra set.

    python tools/train.py configs/pay_attention/vgg_svhn.py
"""

_base_ = './vgg-att2-pc_svhn.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(arch='vgg', out_indices=()),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),  # of the 1x1 of the global vector
    head=dict(in_channels=(512,)),
)
