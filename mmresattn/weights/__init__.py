"""How weights come in and go out: one guarded loader, what may be new in a model, publishing."""

from .loader import CheckpointError, DamagedCheckpoint, UnsafeCheckpoint, read_checkpoint

__all__ = ['CheckpointError', 'DamagedCheckpoint', 'UnsafeCheckpoint', 'read_checkpoint']
