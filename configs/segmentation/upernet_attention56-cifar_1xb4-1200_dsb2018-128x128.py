"""UPerNet on the CIFAR network Attention-56, for nuclei, on one CPU thread in bfloat16: 1,261,492 parameters.

Starts from the weights of this repository; nothing is frozen. Data: see _base_/datasets/dsb2018_128x128.py.

    python tools/train.py configs/segmentation/upernet_attention56-cifar_1xb4-1200_dsb2018-128x128.py
"""

_base_ = [
    'mmseg::_base_/models/upernet_r50.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_20k.py',
    '../_base_/datasets/dsb2018_128x128.py',
    '../_base_/segmentation.py',
]

norm_cfg = dict(type='BN', requires_grad=True)
# Of the training images, which are grey and dark.
data_preprocessor = dict(size=_base_.crop_size, mean=[12.67] * 3, std=[17.84] * 3)
model = dict(
    pretrained=None,
    data_preprocessor=data_preprocessor,
    backbone=dict(
        _delete_=True,
        type='ResidualAttentionNet',
        arch='attention56-cifar',
        strides=(2, 2, 2),  # outputs at strides 2, 4 and 8: a quarter of the cost
        out_indices=(0, 1, 2),
        norm_outputs=True,
        init_cfg=dict(
            type='ClassifierWeights',
            checkpoint='mmresattn://attention56_cifar10_fast.safetensors',
            new=('norm1', 'norm2'),
        ),
    ),
    decode_head=dict(in_channels=[64, 128, 256], in_index=[0, 1, 2], channels=32, num_classes=2, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=128, in_index=1, channels=32, num_classes=2, norm_cfg=norm_cfg),
)

iters = 1200
optim_wrapper = dict(
    _delete_=True, type='AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=50, by_epoch=False),
    dict(type='PolyLR', power=0.9, begin=50, end=iters, by_epoch=False),
]
train_cfg = dict(max_iters=iters, val_interval=400)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(type='WholeCheckpointHook', interval=400, max_keep_ckpts=1)
)
auto_scale_lr = dict(base_batch_size=4)
