from .channels_last_hook import ChannelsLastWeightsHook
from .replay import ReplayHook, ReplaySampler, ReplaySeed
from .sync_buffers_hook import SyncSavedBuffersHook

__all__ = ['ChannelsLastWeightsHook', 'ReplayHook', 'ReplaySampler', 'ReplaySeed', 'SyncSavedBuffersHook']
