# mmdet's default_runtime with the parts of this package that every training gets, its cures, and operators in place of
# MMCV's.
_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(
    imports=['mmresattn', 'mmresattn.compat.enabled', 'mmresattn.compat.operators_enabled'], allow_failed_imports=False
)
default_hooks = dict(checkpoint=dict(type='WholeCheckpointHook', max_keep_ckpts=3))
custom_hooks = [
    dict(type='ReplayHook'),  # resumed = uninterrupted
    dict(type='StopOnSignalHook'),  # SIGTERM and SIGUSR1: saves a checkpoint and exits
    dict(type='NonFiniteLossHook'),  # stops at a loss of NaN, and says where it came from
    dict(type='SyncSavedBuffersHook'),  # BatchNorm statistics agree between processes
    dict(type='ChannelsLastWeightsHook'),  # faster on CPUs
]
randomness = dict(seed=0, deterministic=False)
