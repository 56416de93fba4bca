"""Attention-56 (CIFAR net) on scikit-learn's handwritten digits, enlarged to 16x16: the run to try first.

1,030,394 parameters, 0.03 G multiply-adds; about a minute on two CPU cores, over 99 % on the held-out fifth.

    python tools/train.py configs/resattn/attention56_digits.py
"""

_base_ = ['../_base_/datasets/digits_bs32.py', '../_base_/default_runtime.py']

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

epochs = 12
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=epochs - 3, begin=3, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=3)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=32)

default_hooks = dict(logger=dict(interval=10))
# The average over the last two epochs or so: a few digits that could be either of two no longer change sides.
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=0.01, update_buffers=True)]
