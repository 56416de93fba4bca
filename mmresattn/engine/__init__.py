from .autocast_optim_wrapper import AutocastOptimWrapper
from .channels_last_hook import ChannelsLastWeightsHook
from .checkpoint_hooks import CheckWeightsHook, WholeCheckpointHook
from .layer_decay import BackboneLayerDecayConstructor
from .nonfinite_hook import NonFiniteLossHook
from .replay import ReplayHook, ReplaySampler, ReplaySeed
from .sync_buffers_hook import SyncSavedBuffersHook

__all__ = [
    'AutocastOptimWrapper',
    'BackboneLayerDecayConstructor',
    'ChannelsLastWeightsHook',
    'CheckWeightsHook',
    'NonFiniteLossHook',
    'ReplayHook',
    'ReplaySampler',
    'ReplaySeed',
    'SyncSavedBuffersHook',
    'WholeCheckpointHook',
]
