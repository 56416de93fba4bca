"""Multi-task Attention Branch Network on ResNet-101, the 40 attributes of CelebA: 57,710,736 parameters.

The accuracies that the authors ship are 90.87 % in the mean over the attributes. As in their code for CVPR: trained on
the training and validation splits, tested on the test split, images squashed to 224x224, no augmentation. Theirs starts
from Caffe's ResNet-101, which strides in the first 1x1 convolution of a block; here it is torchvision's, with its own
mean and deviation.
Data: data/celeba/{img_align_celeba/*.jpg,list_attr_celeba.txt,list_eval_partition.txt}, or under $MMRESATTN_DATA.

    python tools/train.py configs/abn/abn-multitask-resnet101_celeba.py
"""

_base_ = '../_base_/default_runtime.py'

from mmresattn.datasets import CELEBA_ATTRIBUTES  # noqa: E402

model = dict(
    type='AttentionBranchNetwork',
    backbone=dict(type='ResNet', depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')),
    neck=dict(type='MultiTaskAttentionBranchNeck'),
    head=dict(
        type='MultiTaskAttentionBranchHead',
        num_classes=40,
        tasks=CELEBA_ATTRIBUTES,
        with_cp=True,  # memory for 1 instead of 40 passes of the last stage
    ),
)

image_size = 224
data_root = '{{$MMRESATTN_DATA:data}}/celeba'
data_preprocessor = dict(
    num_classes=40,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
test_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='Resize', scale=(image_size, image_size)),
    dict(type='PackInputs'),
]
train_pipeline = [dict(type='ReplaySeed'), *test_pipeline]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    sampler=dict(type='ReplaySampler', shuffle=True),
    dataset=dict(type='CelebAAttributes', data_root=data_root, splits=['train', 'val'], pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CelebAAttributes', data_root=data_root, splits=['test'], pipeline=test_pipeline),
)
test_dataloader = val_dataloader
# all_tasks_accuracy/top1 is the mean over the attributes; Smiling_accuracy/top1 and so on are those of each.
val_evaluator = dict(
    type='MultiTasksMetric',
    task_metrics={name: [dict(type='Accuracy')] for name in ['all_tasks', 'attention_branch', *CELEBA_ATTRIBUTES]},
)
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type='StepLR', by_epoch=True, step_size=4, gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=8)
randomness = dict(seed=1701)
