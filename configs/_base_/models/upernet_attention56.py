# mmseg's UPerNet on Attention-56. As in mmseg everything is trained, and BatchNorm takes its statistics over all GPUs:
# 8 or 16 large crops an iteration are enough for that, and rate and length of the schedule are made for it.
_base_ = 'mmseg::_base_/models/upernet_r50.py'

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='ResidualAttentionNet',
        arch='attention56',
        out_indices=(0, 1, 2, 3),  # strides 4, 8, 16, 32
        norm_outputs=True,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='ClassifierWeights', checkpoint=None, new=('norm1', 'norm2', 'norm3')),
    ),
)
