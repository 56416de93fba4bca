# ImageNet as in imagenet_bs32.py, by epochs and without its colour augmentation. The scores of the attention branch are
# evaluated, too.
_base_ = './imagenet_bs32.py'

image_size = 224
train_pipeline = [
    dict(type='ReplaySeed'),
    dict(type='LoadCheckedImage'),
    dict(type='RandomResizedCrop', scale=image_size),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(sampler=dict(infinite=False), dataset=dict(pipeline=train_pipeline))
val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='MultiTasksMetric', task_metrics=dict(attention_branch=[dict(type='Accuracy', topk=(1, 5))])),
]
test_evaluator = val_evaluator
