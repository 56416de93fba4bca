"""What every floor may use."""

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import nn


def seed_by(stream: str, *key: int) -> None:
    """Set the random state of Python, NumPy and PyTorch to a function of some numbers.

    A run whose draws are functions of (seed, where it stands) instead of everything drawn before can be interrupted
    and resumed anywhere, with any number of workers, and ends with the same weights.

    Args:
        stream (str): What the numbers are for. Other streams are independent.
        *key (int): Numbers >= 0, such as seed, epoch and index. Other keys give independent states.
    """
    python, numpy, pytorch = (
        int(word) for word in np.random.SeedSequence([*stream.encode(), len(key), *key]).generate_state(3)
    )
    random.seed(python)
    np.random.seed(numpy)
    torch.manual_seed(pytorch)


def random_state() -> Callable[[], None]:
    """A function that sets the random states of Python, NumPy and PyTorch (on CPUs) back to what they are now."""
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(pytorch)

    return restore


def input_channels(model: nn.Module) -> int:
    """Channels of the images that a network takes: those of its first convolution."""
    return next(module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))
