"""One small file for each break of the stack below, which names the break that it mends."""

from .checkpoints import allow_mmengine_checkpoints
from .cpu_launch import prepare_cpu_launch
from .stack import check_stack

__all__ = ['allow_mmengine_checkpoints', 'check_stack', 'prepare_cpu_launch']
