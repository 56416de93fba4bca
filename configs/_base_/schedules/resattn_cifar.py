# The paper: Nesterov SGD, batch 64, momentum 0.9, weight decay 1e-4, rate 0.1, divided by 10 at 64k and 96k of 160k
# iterations.
_base_ = '../default_runtime.py'

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4))
param_scheduler = dict(type='MultiStepLR', by_epoch=False, milestones=[64_000, 96_000], gamma=0.1)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160_000, val_interval=4_000)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)

default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=4_000, max_keep_ckpts=3),
    logger=dict(log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
env_cfg = dict(cudnn_benchmark=True)
