# The number of red cells in BCCD photographs: python tools/dataset_converters/blood_cells.py data/bccd
# Each is resized to a square, so that the network sees all of it, and kept in memory.
data_root = '{{$MMRESATTN_DATA:data}}/bccd'
image_size = 128

resize = dict(type='Resize', scale=(image_size, image_size), backend='pillow', interpolation='bicubic')
load = [dict(type='LoadCheckedImage'), resize]
kept = dict(type='KeepInMemory', transforms=load)
pack = dict(type='PackInputs', algorithm_keys=['gt_value'])
dataset = dict(type='ValueList', data_root=data_root, data_prefix='images')
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='ReplaySampler', shuffle=True),
    dataset=dict(
        **dataset,
        ann_file='red_train.csv',
        pipeline=[
            dict(type='ReplaySeed'),
            kept,
            dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
            pack,
        ],
    ),
)
val_dataloader = dict(
    batch_size=29,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, ann_file='red_val.csv', test_mode=True, pipeline=[kept, pack]),
)
val_evaluator = dict(type='ValueMetric')
test_dataloader = dict(
    batch_size=24,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, ann_file='red_test.csv', test_mode=True, pipeline=[*load, pack]),
)
test_evaluator = val_evaluator
