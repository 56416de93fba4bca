# See configs/_base_/schedules/resattn_cifar.py.
from mmengine.config import read_base
from mmengine.optim import MultiStepLR
from mmengine.runner import IterBasedTrainLoop
from torch.optim import SGD

with read_base():
    from .default_runtime import *

optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4))
param_scheduler = dict(type=MultiStepLR, by_epoch=False, milestones=[64_000, 96_000], gamma=0.1)
train_cfg = dict(type=IterBasedTrainLoop, max_iters=160_000, val_interval=4_000)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)

default_hooks.merge(
    dict(checkpoint=dict(by_epoch=False, interval=4_000, max_keep_ckpts=3), logger=dict(log_metric_by_epoch=False))
)
log_processor = dict(by_epoch=False)
env_cfg.merge(dict(cudnn_benchmark=True))
