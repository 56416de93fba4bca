# The authors' code: SGD without Nesterov, batch 256, momentum 0.9, weight decay 1e-4, rate 0.1, divided by 10 after 31
# and 61 of 90 epochs.
_base_ = '../default_runtime.py'

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[31, 61], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)
env_cfg = dict(cudnn_benchmark=True)
