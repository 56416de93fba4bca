"""Attention-92 on CIFAR-10 with a modern recipe: 1,841,274 parameters, 0.21 G multiply-adds.

Cosine schedule with warm-up, label smoothing, mixup or cutmix on half of the batches, random erasing, averaged weights,
300 epochs of 128 images. The paper's recipe is that of attention92_cifar10.py.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention92_cifar10_modern.py
"""

_base_ = ['../_base_/datasets/cifar10_memory_bs64.py', '../_base_/default_runtime.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResidualAttentionNet', arch='attention92-cifar'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=256,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)], probs=[0.25, 0.25]),
)
data_preprocessor = dict(
    batch_transforms=[
        *_base_.data_preprocessor.batch_transforms,
        dict(type='BatchRandomErasing', erase_prob=0.25, max_area_ratio=1 / 3),
    ]
)
train_dataloader = dict(batch_size=128, drop_last=True, sampler=dict(infinite=False))

epochs = 300
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=epochs - 5, begin=5, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=10)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
env_cfg = dict(cudnn_benchmark=True)

custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=5e-4, update_buffers=True)]
