"""Faster R-CNN on Attention-56 (CIFAR net, from its weights in this repository) finds blood cells.

2,078,735 parameters. Box AP 58.8 % on the test images (91.0 % at IoU 0.5) after 11 minutes of one CPU thread.
BCCD: 205, 87 and 72 images to train, validate and test, resized to 192x144; red and white cells and platelets.
Data: data/bccd/{images,annotations/{train,val,test}.json}, or under $MMRESATTN_DATA.

    python tools/train.py configs/detection/faster-rcnn_attention56-cifar_fpn_bccd.py
"""

_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/datasets/bccd_boxes.py',
    '../_base_/detection.py',
]

strides = [2, 4, 8]
model = dict(
    data_preprocessor=dict(mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255], pad_size_divisor=16),
    backbone=dict(
        _delete_=True,
        type='ResidualAttentionNet',
        arch='attention56-cifar',
        strides=(2, 2, 2),  # 1, 2, 2 for the classifier
        out_indices=(0, 1, 2),
        norm_outputs=True,
        init_cfg=dict(
            type='ClassifierWeights',
            checkpoint='mmresattn://attention56_cifar10_fast.safetensors',
            new=['norm1', 'norm2'],
        ),
    ),
    neck=dict(in_channels=[64, 128, 256], out_channels=64, num_outs=3),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[8], strides=strides),  # 16, 32 and 64 pixels: platelets, red cells, white cells
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

resize = dict(type='Resize', scale=(192, 144))
train_pipeline = [resize if step.type == 'Resize' else step for step in _base_.train_pipeline]
test_pipeline = [resize if step.type == 'Resize' else step for step in _base_.test_pipeline]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

epochs = 12
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=epochs - 1, begin=1, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=3)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=2)

default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(max_keep_ckpts=2, save_best='coco/bbox_mAP', rule='greater'),
)
