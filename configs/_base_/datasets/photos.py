# Your own photographs, in one folder for each class: FOLDER/{train,val,test}/<class>/*, or FOLDER/<class>/*.
# The number of classes is read from the folders. Images are decoded once and kept in memory.
# Every image is resized to a square, so that the network sees all of it, and its attention maps cover all of it.
# Training crops are smaller than test images: objects look larger in them, and they take two thirds of the time.
image_size = 160
train_size = 128
data_root = '{{$MMRESATTN_DATA:data}}/clothing'

bicubic = dict(backend='pillow', interpolation='bicubic')
resize = dict(type='Resize', scale=(image_size, image_size), **bicubic)
train_pipeline = [
    dict(type='ReplaySeed'),
    dict(type='KeepInMemory', transforms=[dict(type='LoadCheckedImage', skip_broken=True), resize]),
    dict(
        type='RandomResizedCrop',
        scale=train_size,
        crop_ratio_range=(0.6, 1.0),
        aspect_ratio_range=(0.8, 1.25),
        **bicubic,
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadCheckedImage'), resize, dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='ReplaySampler', shuffle=True),
    dataset=dict(type='PhotoFolder', data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='PhotoFolder',
        data_root=data_root,
        split='val',
        pipeline=[dict(type='KeepInMemory', transforms=test_pipeline[:-1]), test_pipeline[-1]],
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='PhotoFolder', data_root=data_root, split='test', pipeline=test_pipeline),
)
test_evaluator = val_evaluator
