"""Residual Attention Networks, and the visual attention around them, for OpenMMLab.

Importing the package registers its parts in MMEngine's root registries.
"""

from .compat import allow_mmengine_checkpoints, check_stack
from .version import __version__

check_stack()
allow_mmengine_checkpoints()

from . import datasets, engine, models  # noqa: E402

__all__ = ['__version__', 'datasets', 'engine', 'models']
