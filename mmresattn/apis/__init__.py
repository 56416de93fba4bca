from .classifier import load_classifier
from .launch import add_common_arguments, build_runner, latest_checkpoint, load_config, use_mixed_precision

__all__ = [
    'add_common_arguments',
    'build_runner',
    'latest_checkpoint',
    'load_classifier',
    'load_config',
    'use_mixed_precision',
]
