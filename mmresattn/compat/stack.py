"""The break: a missing or too old part of the stack fails far from its cause, often as an AttributeError."""

import importlib
import warnings

from packaging.version import Version

# Package: lowest version that works, first that is not known to, and how to install it.
STACK = {
    'torch': ('2.6', '3.0', 'pip install torch torchvision'),
    'mmengine': ('0.10.4', '1.0', 'pip install mmengine==0.10.7'),
    # MMCV and MMCV-lite own the same files, so only the user can choose one.
    'mmcv': ('2.0.0', '2.4', 'pip install mmcv-lite==2.1.0  (or mmcv==2.1.0, if you need its compiled operators)'),
    'mmpretrain': ('1.2.0', '2.0', 'pip install mmpretrain==1.2.0'),
}


def check_stack() -> None:
    """Check that PyTorch, MMEngine, MMCV and MMPretrain are there and in range.

    Raises:
        ImportError: If one is missing or out of range. The message says what to install.
    """
    for package, (lowest, first_unknown, install) in STACK.items():
        needed = f'mmresattn needs {package} >= {lowest}, < {first_unknown}'
        try:
            found = importlib.import_module(package).__version__
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
            raise ImportError(f'{needed}, which is not installed. Run: {install}') from error
        if not Version(lowest) <= Version(found) < Version(first_unknown):
            raise ImportError(f'{needed}, but {found} is installed. Run: {install}')
    with warnings.catch_warnings():
        # At every start MMCV-lite would say here that it lacks an operator, which nothing of ours uses.
        warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
        importlib.import_module('mmcv.cnn.bricks.transformer')
