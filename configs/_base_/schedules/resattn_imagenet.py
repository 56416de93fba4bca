# The paper: SGD, momentum 0.9, rate 0.1, divided by 10 at 200k, 400k and 500k of 530k iterations. It does not give
# batch size, weight decay and Nesterov; here they are 256 (106 epochs), 1e-4 and no.
_base_ = '../default_runtime.py'

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type='MultiStepLR', by_epoch=False, milestones=[200_000, 400_000, 500_000], gamma=0.1)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=530_000, val_interval=10_000)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)

default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=10_000, max_keep_ckpts=3),
    logger=dict(log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
env_cfg = dict(cudnn_benchmark=True)
