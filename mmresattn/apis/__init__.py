from .classifier import existing_indices, load_classifier, load_data_set
from .corrections import USES, training_config
from .launch import (
    add_common_arguments,
    build_model,
    build_runner,
    latest_checkpoint,
    load_config,
    read_config,
    use_mixed_precision,
)
from .model_index import register_models

__all__ = [
    'USES',
    'AttentionInferencer',
    'add_common_arguments',
    'build_model',
    'build_runner',
    'existing_indices',
    'latest_checkpoint',
    'load_classifier',
    'load_config',
    'load_data_set',
    'read_config',
    'register_models',
    'training_config',
    'use_mixed_precision',
]


# What brings Matplotlib along, which importing the package does not need, is imported when it is asked for.
def __getattr__(name):
    if name == 'AttentionInferencer':
        from .attention_inferencer import AttentionInferencer

        return AttentionInferencer
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
