"""Checks of arguments that PyTorch and MMPretrain would accept in silence, or refuse without naming them."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from torch import Tensor


def _is_integer(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and value >= least


def check_integers(least: int = 1, **values: Any) -> None:
    """Check that arguments are integers of at least ``least``; a ValueError names any other."""
    for name, value in values.items():
        if not _is_integer(value, least):
            raise ValueError(f'{name} is an integer of at least {least}, not {value!r}.')


def check_each_stage(n: int, least: int = 1, **values: Any) -> None:
    """Check that arguments are sequences of ``n`` integers of at least ``least``; a ValueError names any other."""
    for name, value in values.items():
        if not isinstance(value, Sequence) or len(value) != n or not all(_is_integer(v, least) for v in value):
            raise ValueError(
                f'{name} has one integer of at least {least} for each of the {n} stages; {value!r} does not fit.'
            )


def check_frozen_stages(frozen_stages: Any, n: int) -> None:
    """Check that of ``n`` stages -1 to ``n`` are frozen; else raise a ValueError."""
    if not _is_integer(frozen_stages, -1) or frozen_stages > n:
        raise ValueError(f'frozen_stages is an integer from -1 to {n}, not {frozen_stages!r}.')


def stage_indices(out_indices: int | Sequence[int], n: int) -> list[int]:
    """The stages whose outputs are returned, from 0 to n - 1 and in their order.

    Args:
        out_indices (int | Sequence[int]): One or more of them, from 0; negative ones count from the end.
        n (int): Number of stages.

    Raises:
        ValueError: If there is none, one is out of range, or one is named twice.
    """
    indices = [out_indices] if not hasattr(out_indices, '__iter__') else list(out_indices)
    if not indices or not all(_is_integer(index, -n) and index < n for index in indices):
        raise ValueError(f'out_indices are from {-n} to {n - 1}, not {indices}.')
    if len({index % n for index in indices}) < len(indices):
        raise ValueError(f'out_indices name a stage twice: {indices}.')
    return sorted(index % n for index in indices)


def architecture_fields(arch: str | dict, named: Mapping[str, Mapping], known: Mapping[str, bool]) -> dict:
    """The fields of an architecture, by its name or as a dict, which may start from a name.

    Args:
        arch (str | dict): Such as ``'attention56'`` or ``dict(base='attention56', r=2)``.
        named (Mapping[str, Mapping]): The fields of each name.
        known (Mapping[str, bool]): All fields, and whether one must be given.

    Raises:
        ValueError: If a name or field is unknown, or a field is missing.
    """
    if not isinstance(arch, str | dict):
        raise ValueError(f'An architecture is a name, one of {list(named)}, or a dict, not {arch!r}.')
    fields = dict(base=arch) if isinstance(arch, str) else dict(arch)
    base = fields.pop('base', None)
    if base is not None and base not in list(named):
        raise ValueError(f'Unknown architecture {base!r}; there are {list(named)}, or give a dict.')
    fields = {**named.get(base, {}), **fields}
    missing = [name for name, needed in known.items() if needed and name not in fields]
    unknown = [name for name in fields if name not in known]
    if missing or unknown:
        raise ValueError(
            f'An architecture has the fields {list(known)} (and base); missing: {missing}, unknown: {unknown}.'
        )
    return fields


def check_images(x: Tensor, channels: int, min_size: int = 1) -> None:
    """Check that images are (N, channels, H, W), H and W at least ``min_size``; else raise a ValueError."""
    if x.dim() != 4 or x.shape[1] != channels:
        raise ValueError(f'Expected images of shape (N, {channels}, H, W), got {tuple(x.shape)}.')
    if x.shape[2] < min_size or x.shape[3] < min_size:
        raise ValueError(
            f'Images of {x.shape[2]}x{x.shape[3]} are too small: this network needs at least {min_size}x{min_size}. '
            'Resize them, or take an architecture with fewer poolings.'
        )
