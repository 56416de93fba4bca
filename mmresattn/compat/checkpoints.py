"""The break: PyTorch >= 2.6 loads with ``weights_only=True`` and so refuses what MMEngine <= 0.10 puts into its
checkpoints: a ``HistoryBuffer`` of logged values in every one, and a method in the state of a one-cycle schedule."""

import pickle
from collections.abc import Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

# All that MMEngine's checkpoints look up by `getattr`.
METHODS = {
    HistoryBuffer: ('mean', 'max', 'min', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def method(owner: type, name: str) -> Callable:
    """What stands in for ``getattr`` in a checkpoint: the methods that MMEngine pickles, and no more.

    The real ``getattr`` would hand any pickle the way to code of its choice, from any allowed function to its
    ``__globals__`` and ``__builtins__``.

    Args:
        owner (type): A key of ``METHODS``.
        name (str): One of its methods there.

    Returns:
        Callable: That method.

    Raises:
        pickle.UnpicklingError: If a checkpoint asks for anything else.
    """
    for known, names in METHODS.items():
        if owner is known and name in names:
            return getattr(known, name)
    raise pickle.UnpicklingError(f'The attribute {name!r} of {owner!r} is refused: a checkpoint could run code by it.')


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(..., weights_only=True)`` read checkpoints of MMEngine. Calling it twice does no harm."""
    reconstruct = np.zeros(0).__reduce__()[0]  # builds an array
    scalar = np.float64().__reduce__()[0]  # builds a NumPy number
    torch.serialization.add_safe_globals(
        [
            *METHODS,
            (method, 'builtins.getattr'),
            np.ndarray,
            np.dtype,
            *(type(np.dtype(kind)) for kind in ('float64', 'float32', 'int64', 'int32', 'bool')),
            # NumPy 2 renamed the module in which NumPy 1 pickled these.
            *(
                (function, f'{module}.{function.__name__}')
                for function in (reconstruct, scalar)
                for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
            ),
        ]
    )
