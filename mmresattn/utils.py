"""Functions without a place of their own that any module may use."""

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


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


def count_multiply_adds(model: nn.Module, *args, **kwargs) -> int:
    """Multiply-adds of the convolutions and matrix products of a forward pass, which papers on classifiers call FLOPs.

    The two products of self-attention count by their shapes: PyTorch's own counter misses some of its fused kernels.

    Args:
        model (nn.Module): The model, on any device; on ``meta`` nothing is computed.
        *args: Of the forward pass.
        **kwargs: Of the forward pass.

    Returns:
        int: Their number.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(*args, **kwargs)
    return counter.get_total_flops() // 2  # PyTorch counts a multiply-add as two
