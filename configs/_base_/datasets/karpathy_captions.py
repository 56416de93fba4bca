# Captions in Karpathy's layout, images as in the paper: the shorter side resized to 256, the middle 224x224.
# A config sets data_root, ann_file and the folder of images: see configs/captioning.
bicubic = dict(backend='pillow', interpolation='bicubic')
prepare = [dict(type='ResizeEdge', scale=256, edge='short', **bicubic), dict(type='CenterCrop', crop_size=224)]
pack = dict(type='PackInputs', algorithm_keys=['gt_caption'], meta_keys=['image_id', 'img_path'])
test_pipeline = [dict(type='LoadCheckedImage'), *prepare, pack]
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    drop_last=True,
    sampler=dict(type='ReplaySampler', shuffle=True),
    dataset=dict(
        type='KarpathyCaptions',
        split='train',
        pipeline=[
            dict(type='ReplaySeed'),
            dict(type='LoadCheckedImage', skip_broken=True),
            *prepare,
            pack,
        ],
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='KarpathyCaptions', split='val', test_mode=True, pipeline=test_pipeline),
)
val_evaluator = dict(type='CaptionMetric')
test_dataloader = dict(
    batch_size=64,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='KarpathyCaptions', split='test', test_mode=True, pipeline=test_pipeline),
)
test_evaluator = val_evaluator
