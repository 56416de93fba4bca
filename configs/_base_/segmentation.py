# What a training by mmseg's configs gets besides: parts of this package, and a seed from which every draw follows.
custom_imports = dict(
    imports=['mmresattn', 'mmresattn.compat.enabled', 'mmresattn.compat.operators_enabled'], allow_failed_imports=False
)
custom_hooks = [
    dict(type='ReplayHook'),  # resumed = uninterrupted
    dict(type='StopOnSignalHook'),  # SIGTERM and SIGUSR1: saves a checkpoint and exits
    dict(type='NonFiniteLossHook'),  # stops at a loss of NaN, and says where it came from
    dict(type='SyncSavedBuffersHook'),  # BatchNorm statistics agree between processes
    dict(type='ChannelsLastWeightsHook'),  # faster on CPUs
]
randomness = dict(seed=0, deterministic=False)
