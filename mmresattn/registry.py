"""Scope ``mmresattn``: ``type='mmresattn.ResidualAttentionNet'`` resolves with no import.

The parts themselves register in MMEngine's root registries, so that once the package is imported a plain
``type='ResidualAttentionNet'`` resolves from the scope of every OpenMMLab package.
"""

from mmengine import registry as root
from mmengine.registry import Registry


def _child(parent: Registry, *locations: str) -> Registry:
    return Registry(parent.name, parent=parent, scope='mmresattn', locations=list(locations))


MODELS = _child(root.MODELS, 'mmresattn.models')
DATASETS = _child(root.DATASETS, 'mmresattn.datasets')
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, 'mmresattn.engine')
TRANSFORMS = _child(root.TRANSFORMS, 'mmresattn.engine', 'mmresattn.datasets')
HOOKS = _child(root.HOOKS, 'mmresattn.engine')
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, 'mmresattn.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS, 'mmresattn.engine')
METRICS = _child(root.METRICS, 'mmresattn.evaluation')
FUNCTIONS = _child(root.FUNCTIONS, 'mmresattn.datasets')
WEIGHT_INITIALIZERS = _child(root.WEIGHT_INITIALIZERS, 'mmresattn.weights')
