"""Attention-56 on CIFAR-10 in bfloat16, for two CPU cores: 1,030,394 parameters, 0.12 G multiply-adds.

24 epochs of 45,000 training images, which grow from 16x16 over 24x24 to 32x32; 5,000 training images validate.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention56_cifar10_fast.py
"""

_base_ = ['../_base_/datasets/cifar10_heldout_bs64.py', '../_base_/default_runtime.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResidualAttentionNet', arch='attention56-cifar'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=256,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
)
data_preprocessor = dict(
    batch_transforms=[
        *_base_.data_preprocessor.batch_transforms,
        dict(type='BatchProgressiveResize', sizes=[(0, 16), (0.25, 24), (0.5, 32)]),
    ]
)

epochs = 24
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=epochs - 1, begin=1, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=2)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
train_dataloader = dict(drop_last=True, sampler=dict(infinite=False))
