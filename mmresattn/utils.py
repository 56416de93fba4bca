"""Functions without a place of their own that any module may use."""

import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def listed(names: Iterable, most: int = 3) -> str:
    """The first of some names, and how many more there are: ``'a, b, c and 2 more'``."""
    names = list(map(str, names))
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def type_name(config: Mapping) -> str:
    """Name of the class in a config, which has the class itself or its name, with or without a scope."""
    kind = config.get('type', '')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def nested_dicts(content) -> Iterator[dict]:
    """Every dict in nested dicts, lists and tuples, such as the parts of a model in its config; outer ones first."""
    if isinstance(content, dict):
        yield content
    if isinstance(content, dict | list | tuple):
        for part in content.values() if isinstance(content, dict) else content:
            yield from nested_dicts(part)


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


def is_detector(model: nn.Module) -> bool:
    """Whether a model is a detector of MMDetection, which is not imported for this."""
    kinds = [(kind.__module__.partition('.')[0], kind.__name__) for kind in type(model).__mro__]
    return ('mmdet', 'BaseDetector') in kinds


def forward_images(model: nn.Module, images: Tensor, **kwargs) -> Tensor | tuple[Tensor, ...]:
    """What a model computes from images (N, C, H, W) alone.

    Of a detector backbone and neck run, because its heads want boxes or sizes of images as well; of other models the
    forward pass, with ``kwargs``.
    """
    return model.extract_feat(images) if is_detector(model) else model(images, **kwargs)


def class_scores(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits (N, classes) of a classifier of MMPretrain's kind for preprocessed images (N, C, H, W).

    Raises:
        ValueError: If the classifier returns anything else, as some of MMPretrain's do.
    """
    scores = model(inputs, mode='tensor')
    if not isinstance(scores, Tensor) or scores.dim() != 2:
        returned = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(
            f"The classifier's scores must be a tensor (N, classes); model(..., mode='tensor') gave {returned}."
        )
    return scores


def count_multiply_adds(model: Callable, *args, **kwargs) -> int:
    """Multiply-adds of the convolutions and matrix products of a forward pass, which papers on classifiers call FLOPs.

    The two products of self-attention count by their shapes: PyTorch's own counter misses some of its fused kernels.

    Args:
        model (Callable): The model, on any device, or a function that runs it; on ``meta`` nothing is computed.
        *args, **kwargs: Of the forward pass.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(*args, **kwargs)
    return counter.get_total_flops() // 2  # PyTorch counts a multiply-add as two


def time_in_turns(
    calls: Mapping[Hashable, Callable], rounds: int, repeats: int = 1, clock: Callable[[], float] | None = None
) -> dict[Hashable, list[float]]:
    """Time calls in turns, so that other work on the machine slows all of them alike.

    Args:
        calls (Mapping[Hashable, Callable]): What to time, by name.
        rounds (int): Rounds in which each has its turn, after one that warms up.
        repeats (int): Calls in a turn. Defaults to 1.
        clock (Callable, optional): Gives seconds. Defaults to PyTorch's timer, which waits for the accelerator.

    Returns:
        dict[Hashable, list[float]]: By name the seconds of each call.
    """
    from torch.utils.benchmark.utils.timer import timer  # which takes a while to import

    clock = clock or timer
    seconds = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            for _ in range(repeats):
                begin = clock()
                call()
                if number:
                    seconds[name].append(clock() - begin)
    return seconds
