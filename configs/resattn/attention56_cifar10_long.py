"""Attention-56 on CIFAR-10 for CPU cores without bfloat16: 1,030,394 parameters, 0.12 G multiply-adds.

40 epochs of 50,000 images that grow from 16x16 over 24x24 to 32x32. The learning rate is constant at first and falls to
zero over the last 40 %: until then the length can still be changed. The paper's recipe is attention56_cifar10.py.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention56_cifar10_long.py
"""

_base_ = ['../_base_/datasets/cifar10_memory_bs64.py', '../_base_/default_runtime.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResidualAttentionNet', arch='attention56-cifar', recompute_norms=False),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=256,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
data_preprocessor = dict(
    batch_transforms=[
        *_base_.data_preprocessor.batch_transforms,
        dict(type='BatchProgressiveResize', sizes=[(0, 16), (0.35, 24), (0.65, 32)]),
    ]
)

iterations = 40 * 50_000 // 64
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=800),
    dict(type='LinearLR', start_factor=1, end_factor=0, by_epoch=False, begin=iterations * 3 // 5, end=iterations),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=50),
    logger=dict(log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
