# mmseg's DeepLabV3+ on Attention-56, all of it trained (see upernet_attention56.py).
_base_ = 'mmseg::_base_/models/deeplabv3plus_r50-d8.py'

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='ResidualAttentionNet',
        arch='attention56',
        strides=(1, 2, 1, 1),  # outputs at stride 8 ...
        dilations=(1, 1, 2, 4),  # ... with the receptive fields of the classifier's trunk
        out_indices=(0, 2, 3),  # the first is the head's low-level feature
        norm_outputs=True,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='ClassifierWeights', checkpoint=None, new=('norm1', 'norm3')),
    ),
    decode_head=dict(in_index=2),
    auxiliary_head=dict(in_index=1),
)
