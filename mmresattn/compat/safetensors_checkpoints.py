"""The break: MMEngine loads pickles alone. Weights are also published as safetensors, which hold no code."""

import os

from mmengine.runner.checkpoint import CheckpointLoader
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .checkpoints import BROKEN


# MMEngine takes a "prefix" for a regular expression: here, a path to a file of that kind.
@CheckpointLoader.register_scheme(prefixes=r'(?!\w+://).*\.safetensors$')
def load_from_safetensors(filename: str, map_location=None) -> dict[str, dict[str, Tensor]]:
    """Read a file of weights where MMEngine loads a checkpoint: ``load_from``, ``init_cfg`` or the command line.

    Args:
        filename (str): Path of a ``.safetensors`` file.
        map_location (str | torch.device, optional): Device of the weights. Defaults to the CPU.

    Returns:
        dict: The weights by name, as ``state_dict``, which is where MMEngine's hooks look for them.

    Raises:
        FileNotFoundError: If the file is not there.
        RuntimeError: If it is not whole, or no such file.
    """
    filename = os.path.expanduser(filename)
    if not os.path.isfile(filename):
        raise FileNotFoundError(f'There is no checkpoint {filename}.')
    try:
        return dict(state_dict=load_file(filename, device=str(map_location or 'cpu')))
    except SafetensorError as error:
        raise RuntimeError(BROKEN.format(filename, os.path.getsize(filename), error)) from error
