# mmseg's schedule of 160,000 iterations, whose checkpoints appear when they are whole.
_base_ = 'mmseg::_base_/schedules/schedule_160k.py'

default_hooks = dict(checkpoint=dict(type='WholeCheckpointHook', max_keep_ckpts=3))
