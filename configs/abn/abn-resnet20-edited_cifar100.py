"""Attention Branch Network (ResNet-20) taught by corrected maps, CIFAR-100: 501,650 parameters, 0.10 G multiply-adds.

Both branches learn from maps that people have corrected (Mitsuhara et al., arXiv:1905.03540); the extractor is frozen.
The weight of their loss, rate and epochs are not known; these are a choice.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA. The map of data/cifar100/train/<class>/<image>.png
is data/cifar100_maps/<class>/<image>.png or .npy, for as many images as have one: see docs/abn.md.

    python tools/train.py configs/abn/abn-resnet20-edited_cifar100.py \
        --cfg-options load_from=work_dirs/abn-resnet20_cifar100/epoch_300.pth
"""

_base_ = ['../_base_/datasets/cifar10_bs64.py', '../_base_/schedules/abn_cifar.py']

model = dict(
    type='AttentionBranchNetwork',
    backbone=dict(type='CIFARResNet', depth=20, frozen_stages=2),
    head=dict(
        type='AttentionBranchHead',
        num_classes=100,
        map_loss=dict(type='AttentionMapLoss', loss_weight=1.0),
    ),
)

data_root = '{{$MMRESATTN_DATA:data}}/cifar100'
data_preprocessor = dict(num_classes=100)
train_pipeline = [
    dict(type='ReplaySeed'),
    dict(type='LoadCheckedImage'),
    dict(
        type='LoadAttentionMap',
        map_root=data_root + '_maps',
        image_root=data_root + '/train',
        transforms=[
            dict(type='RandomCrop', crop_size=32, padding=4),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        ],
    ),
    dict(type='PackInputs', algorithm_keys=('gt_attention_map',)),
]
train_dataloader = dict(
    batch_size=128,
    sampler=dict(infinite=False),
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='MultiTasksMetric', task_metrics=dict(attention_branch=[dict(type='Accuracy', topk=(1, 5))])),
]
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = dict(milestones=[10, 15])
train_cfg = dict(max_epochs=20)
