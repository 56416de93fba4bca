# mmseg's FCN on Attention-56, all of it trained (see upernet_attention56.py).
_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='ResidualAttentionNet',
        arch='attention56',
        strides=(1, 2, 1, 1),  # outputs at stride 8 ...
        dilations=(1, 1, 2, 4),  # ... with the receptive fields of the classifier's trunk
        out_indices=(2, 3),
        norm_outputs=True,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='ClassifierWeights', checkpoint=None, new=('norm3',)),
    ),
    decode_head=dict(in_index=1),
    auxiliary_head=dict(in_index=0),
)
