"""Residual Attention Networks, and the visual attention around them, for OpenMMLab.

Importing the package registers its parts in MMEngine's root registries and its classifiers in MMPretrain's model index.
It changes nothing else; :func:`mmresattn.compat.enable` does.
"""

from .compat.stack import check_stack
from .version import __version__

check_stack()  # before anything that would fail for want of it

from . import datasets, engine, evaluation, models, weights  # noqa: E402
from .apis.model_index import register_models  # noqa: E402

register_models()

__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models', 'weights']
