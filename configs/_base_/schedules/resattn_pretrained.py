# For networks that start as a published one: 10 epochs of 256 images, the deeper a unit on the trunk the closer to the
# full learning rate, new masks and the classifier at the full one. Chosen by rule of thumb; nobody has tuned it.
_base_ = '../default_runtime.py'

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4),
    constructor='BackboneLayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.8),
)
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, start_factor=0.01, begin=0, end=1000),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=1000, end=50_000),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=50_000, val_interval=5_000)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)

default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=5_000, max_keep_ckpts=3),
    logger=dict(log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
env_cfg = dict(cudnn_benchmark=True)
