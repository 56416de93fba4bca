"""Whether two checkpoints hold the same numbers."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def named_tensors(content: Any, name: str = '') -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts, lists and tuples, with its keys joined by dots."""
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, dict | list | tuple):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from named_tensors(value, f'{name}.{key}' if name else str(key))


def differing_tensors(first: Any, second: Any) -> list[str]:
    """Names of the tensors that only one of two state dicts or checkpoints has, or that are not equal bit for bit."""
    first, second = dict(named_tensors(first)), dict(named_tensors(second))
    return sorted(first.keys() ^ second.keys()) + [
        name for name in first.keys() & second.keys() if not torch.equal(first[name], second[name])
    ]
