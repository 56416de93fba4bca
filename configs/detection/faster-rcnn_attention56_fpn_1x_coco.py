"""Faster R-CNN with FPN on Attention-56, COCO, 12 epochs: MMDetection's settings for ResNet-50.

RAN's authors published no weights: train attention56_imagenet on ImageNet first.
Without its checkpoint, training does not start. It has not been trained here yet.
Data: data/coco, as for MMDetection, or under $MMRESATTN_DATA.

    bash tools/dist_train.sh configs/detection/faster-rcnn_attention56_fpn_1x_coco.py 8 \\
        --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/attention56_imagenet/CHECKPOINT.pth
"""

_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../_base_/detection.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResidualAttentionNet',
        arch='attention56',
        out_indices=(0, 1, 2, 3),
        norm_outputs=True,
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='ClassifierWeights', checkpoint=None, new=['norm1', 'norm2', 'norm3']),
    )
)
