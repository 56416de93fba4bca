# The authors' code for ResNet-110: SGD without Nesterov, batch 128, momentum 0.9, weight decay 1e-4, rate 0.1, divided
# by 10 after 150 and 225 of 300 epochs.
_base_ = '../default_runtime.py'

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[150, 225], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=5)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(checkpoint=dict(interval=5))
env_cfg = dict(cudnn_benchmark=True)
