# mmseg's schedule of 80,000 iterations, whose checkpoints appear when they are whole.
_base_ = 'mmseg::_base_/schedules/schedule_80k.py'

default_hooks = dict(checkpoint=dict(type='WholeCheckpointHook', max_keep_ckpts=3))
