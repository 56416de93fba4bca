from .channels_last_hook import ChannelsLastHook
from .replay_hook import ReplayHook

__all__ = ['ChannelsLastHook', 'ReplayHook']
