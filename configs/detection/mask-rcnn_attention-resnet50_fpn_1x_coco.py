"""Mask R-CNN with FPN on ResNet-50 with masks, COCO, 12 epochs: MMDetection's settings for ResNet-50.

The backbone starts as torchvision's ResNet-50, which is downloaded, as MMDetection's does; masks are new and trained in
every stage. It has not been trained here yet.
Data: data/coco, as for MMDetection, or under $MMRESATTN_DATA.

    bash tools/dist_train.sh configs/detection/mask-rcnn_attention-resnet50_fpn_1x_coco.py 8
"""

_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../_base_/detection.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResidualAttentionNet',
        arch='attention-resnet50',
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_eval=True,
        new_masks=True,
        init_cfg=dict(type='PretrainedTrunk', checkpoint='torchvision://resnet50'),
    )
)
