from .replay_hook import ReplayHook

__all__ = ['ReplayHook']
