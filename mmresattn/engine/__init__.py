from .autocast_optim_wrapper import AutocastOptimWrapper
from .channels_last_hook import ChannelsLastWeightsHook
from .replay import ReplayHook, ReplaySampler, ReplaySeed
from .sync_buffers_hook import SyncSavedBuffersHook

__all__ = [
    'AutocastOptimWrapper',
    'ChannelsLastWeightsHook',
    'ReplayHook',
    'ReplaySampler',
    'ReplaySeed',
    'SyncSavedBuffersHook',
]
