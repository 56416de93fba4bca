"""Attention-56 under Learn To Pay Attention on CIFAR-10: 1,131,898 parameters.

Attention over the last two stages, scored by <l, g>; both together are classified.
A network of this package alone, so there is no figure to compare with.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/attention56-att2-dp_cifar10.py
"""

_base_ = '../resattn/attention56_cifar10.py'

# The last stage gives local features and, averaged over its positions, the global vector.
model = dict(
    type='PayAttentionNetwork',
    backbone=dict(out_indices=(1, 2), norm_outputs=True),
    neck=dict(
        _delete_=True,
        type='PayAttention',
        score='dp',
        global_channels=256,
    ),
    head=dict(_delete_=True, type='PayAttentionHead', num_classes=10),
)
