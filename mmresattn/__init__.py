"""Residual Attention Networks, and the visual attention around them, for OpenMMLab.

Importing the package registers its parts in MMEngine's root registries.
"""

from .compat.stack import check_stack
from .version import __version__

check_stack()  # before anything that would fail for want of it

from . import datasets, engine, models  # noqa: E402
from .apis.model_index import register_models_when_asked  # noqa: E402
from .compat import safetensors_checkpoints  # noqa: E402, F401
from .compat.checkpoints import allow_mmengine_checkpoints  # noqa: E402
from .compat.meta_device import allow_meta_resnets  # noqa: E402
from .compat.mmcv_ops import allow_missing_operators  # noqa: E402

allow_mmengine_checkpoints()
allow_meta_resnets()
allow_missing_operators()
register_models_when_asked()

__all__ = ['__version__', 'datasets', 'engine', 'models']
