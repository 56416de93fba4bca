# A broken installation fails here, by name.
custom_imports = dict(imports=['mmresattn', 'mmresattn.compat.enabled'], allow_failed_imports=False)
default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='WholeCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)
custom_hooks = [
    dict(type='ReplayHook'),  # resumed = uninterrupted
    dict(type='StopOnSignalHook'),  # SIGTERM and SIGUSR1: saves a checkpoint and exits
    dict(type='NonFiniteLossHook'),  # stops at a loss of NaN, and says where it came from
    dict(type='BrokenImagesHook'),  # lists the images that were skipped
    dict(type='SyncSavedBuffersHook'),  # BatchNorm statistics agree between processes
    dict(type='ChannelsLastWeightsHook'),  # faster on CPUs
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
