from .classifier import load_classifier
from .launch import add_common_arguments, build_runner, latest_checkpoint, load_config, use_mixed_precision
from .model_index import register_models_when_asked

__all__ = [
    'add_common_arguments',
    'build_runner',
    'latest_checkpoint',
    'load_classifier',
    'load_config',
    'register_models_when_asked',
    'use_mixed_precision',
]
