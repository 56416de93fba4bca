# BCCD's boxes around red and white cells and platelets: 205, 87 and 72 images to train, validate and test.
# Data: python tools/prepare_data.py bccd
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
