# CIFAR-10, one folder of images a class. The paper: zero padding of 4, random 32x32 crop, mirror, per-pixel mean
# subtracted. Here the mean is that of each channel, which differs little over pixels, and the deviation is divided out.
image_size = 32
data_root = '{{$MMRESATTN_DATA:data}}/cifar10'
data_preprocessor = dict(
    num_classes=10,
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=True,
)

train_pipeline = [
    dict(type='ReplaySeed'),
    dict(type='LoadCheckedImage'),
    dict(type='RandomCrop', crop_size=image_size, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='ResizeEdge', scale=image_size, edge='short'),  # for other images than CIFAR's
    dict(type='CenterCrop', crop_size=image_size),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    sampler=dict(type='ReplaySampler', shuffle=True, infinite=True),
    dataset=dict(type='ImageFolders', data_root=data_root, data_prefix='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=200,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ImageFolders', data_root=data_root, data_prefix='test', pipeline=test_pipeline),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
