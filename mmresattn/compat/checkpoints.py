"""The break: PyTorch >= 2.6 loads with ``weights_only=True`` and so refuses what MMEngine <= 0.10 puts into its
checkpoints: a ``HistoryBuffer`` of logged values in every one, and a method in the state of a one-cycle schedule. And
of a checkpoint that cannot be read, or fits badly, neither says what it is and what to do."""

import os
import pickle
import re
from collections.abc import Callable
from zipfile import is_zipfile

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

# All that MMEngine's checkpoints look up by `getattr`.
METHODS = {
    HistoryBuffer: ('mean', 'max', 'min', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}

BROKEN = (
    '{} ({:,} bytes) is no whole checkpoint ({}). Perhaps it was cut off while it was written or downloaded: fetch it '
    'again. A training goes on with --resume, which takes the newest whole one.'
)


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


# "Loads checkpoint by local backend", as MMEngine's says of the function in whose place it comes.
@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location=None) -> dict:
    """Read a checkpoint where MMEngine reads one: ``load_from``, ``--resume``, ``init_cfg`` or the command line.

    The variable ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1`` is PyTorch's own way to say that a source is trusted.

    Args:
        filename (str): Path of a file that ``torch.save`` wrote.
        map_location (str | torch.device, optional): Device of the weights. Defaults to where they were.

    Returns:
        dict: The checkpoint, with the weights as ``state_dict`` if the file holds them alone.

    Raises:
        FileNotFoundError: If the file is not there.
        pickle.UnpicklingError: If it holds more than weights and the state of a training, which could be code.
        RuntimeError: If it is not whole, or no checkpoint.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'There is no checkpoint {path}.')
    try:
        checkpoint = torch.load(path, map_location=map_location)
    except PermissionError:
        raise
    except (RuntimeError, EOFError, ValueError, OSError, pickle.UnpicklingError) as error:
        whole = is_zipfile(path)  # the directory of the archive is its end
        if whole and not isinstance(error, pickle.UnpicklingError):
            raise  # such as a device that is not there, or out of memory
        # Of PyTorch's words the one line that says what is wrong: others advise to trust the file.
        lines = str(error).splitlines() or [type(error).__name__]
        line = next((line for line in lines if re.search('GLOBAL|nsupported|refused', line)), lines[0])
        says = line.split('. ')[0].rstrip('.')
        if not whole and not re.search('GLOBAL|refused', says):
            raise RuntimeError(BROKEN.format(path, os.path.getsize(path), says)) from error
        raise pickle.UnpicklingError(
            f'{path} holds more than weights and the state of a training, and could run code on this machine as it is '
            f'read ({says}). It was refused, and nothing of it was run. Ask for the weights alone, best as '
            '.safetensors (tools/model_converters/publish_weights.py writes them). Only if you trust whoever made the '
            'file: set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 for this one command.'
        ) from error
    if not isinstance(checkpoint, dict):
        raise RuntimeError(f'{path} holds a {type(checkpoint).__name__}; a checkpoint is a dict of weights.')
    if all(isinstance(value, torch.Tensor) for value in checkpoint.values()):
        return dict(state_dict=checkpoint)  # where MMEngine's hooks look for the weights
    return checkpoint


def check_weights(model: nn.Module, checkpoint: dict, source: str, new_head: bool = False) -> None:
    """Load weights into a model, and refuse them if they do not fit.

    Args:
        model (nn.Module): The model, perhaps in a wrapper such as DDP.
        checkpoint (dict): The weights by name, or with them as ``state_dict``.
        source (str): Where they come from, for the message.
        new_head (bool): Whether weights with ``head`` in their names may differ. Defaults to False.

    Raises:
        RuntimeError: If names or shapes differ. The message counts and names them.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    given = checkpoint.get('state_dict', checkpoint)
    given = {re.sub(r'^module\.', '', name): weight for name, weight in given.items()}
    own = model.state_dict()
    reshaped = [name for name in own if name in given and getattr(given[name], 'shape', None) != own[name].shape]
    fitting = {name: weight for name, weight in given.items() if name not in reshaped}
    keys = model.load_state_dict(fitting, strict=False)  # as the model itself takes them, which may rename some
    wrong = {
        'of another shape': reshaped,
        'not in the file': [name for name in keys.missing_keys if name not in reshaped],
        'not in the model': keys.unexpected_keys,
    }
    listed = []
    for kind, names in wrong.items():
        names = [n for n in names if not n.endswith('num_batches_tracked') and not (new_head and 'head' in n)]
        if names:
            shown = [f'{n} {_shape(given.get(n))} for {_shape(own[n])}' if n in reshaped else n for n in names[:3]]
            listed.append(f'{len(names)} {kind} ({", ".join(shown)}{", ..." if len(names) > 3 else ""})')
    if listed:
        raise RuntimeError(
            f'{source} does not fit the model, of whose {len(own)} weights and buffers {len(own.keys() & fitting)} '
            f'have their like in it: {"; ".join(listed)}. Give the config with which it was trained, or change arch or '
            'num_classes to those of the file.'
        )


def _shape(weight) -> tuple | str:
    return tuple(weight.shape) if isinstance(weight, torch.Tensor) else type(weight).__name__
