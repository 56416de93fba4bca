# BCCD blood cells with captions that a small grammar writes from their boxes:
#     python tools/dataset_converters/blood_cells.py data/bccd
# Images are seen as a whole, 256x192; flips exchange left and right, upper and lower in the caption. Training images
# bring the boxes of their white cells along, for models with boxed_word='white'.
data_root = '{{$MMRESATTN_DATA:data}}/bccd'
image_scale = (256, 192)

load = [dict(type='LoadCheckedImage'), dict(type='Resize', scale=image_scale)]
train_pipeline = [
    dict(type='ReplaySeed'),
    dict(type='KeepInMemory', transforms=load),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='FlipCaption'),
    dict(
        type='PackInputs',
        algorithm_keys=['gt_caption', 'gt_bboxes'],
        meta_keys=['image_id', 'img_path', 'flip', 'flip_direction'],
    ),
]
test_pipeline = [
    *load,
    dict(type='PackInputs', algorithm_keys=['gt_caption'], meta_keys=['image_id', 'img_path']),
]
dataset = dict(
    type='KarpathyCaptions', data_root=data_root, ann_file='captions.json', data_prefix=dict(img_path='images')
)
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='ReplaySampler', shuffle=True),
    dataset=dict(**dataset, split='train', boxes='white', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=29,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        split='val',
        test_mode=True,
        pipeline=[dict(type='KeepInMemory', transforms=load), test_pipeline[-1]],
    ),
)
val_evaluator = dict(type='CaptionMetric')
test_dataloader = dict(
    batch_size=24,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, split='test', test_mode=True, pipeline=test_pipeline),
)
test_evaluator = val_evaluator
