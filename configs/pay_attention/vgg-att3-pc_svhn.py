"""VGG-att3-concat-pc on SVHN: 19,856,461 parameters.

Attention over layers 7, 10 and 13, scored by <u, l + g>; all together are classified.
The paper has no figure that is known here.
Data: data/svhn/{train,test}/<class>/*, or under $MMRESATTN_DATA; train without the extra set.

    python tools/train.py configs/pay_attention/vgg-att3-pc_svhn.py
"""

_base_ = './vgg-att2-pc_svhn.py'

model = dict(
    backbone=dict(out_indices=(0, 1, 2)),
)
