from .channels_last_hook import ChannelsLastWeightsHook
from .replay_hook import ReplayHook
from .sync_buffers_hook import SyncSavedBuffersHook

__all__ = ['ChannelsLastWeightsHook', 'ReplayHook', 'SyncSavedBuffersHook']
