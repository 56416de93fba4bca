"""What every floor may use."""

import random

import numpy as np
import torch


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
