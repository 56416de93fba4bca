"""Captions that a small grammar writes from boxes, and reads back into their parts.

"One white cell at the upper left and eleven red cells": a caption whose truth is known word by word.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

NUMBERS = (
    'no one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen '
    'eighteen nineteen twenty'
).split() + [f'twenty-{unit}' for unit in 'one two three four five six seven eight nine'.split()]
MANY = 'many'  # 30 or more


class Parts(NamedTuple):
    """What a caption says; None where it does not keep to the grammar or names no place."""

    kinds: frozenset[str] | None  # of which there is at least one
    counts: Mapping[str, str] | None  # by kind the number, as a word
    place: str | None


def _cells(kind: str, count: int) -> str:
    number = NUMBERS[count] if count < len(NUMBERS) else MANY
    return f'{number} {kind} cell{"" if count == 1 else "s"}'


def place_of(box: Sequence[float], shape: tuple[int, int]) -> str:
    """In which quarter of an image (H, W) the middle of a box (x1, y1, x2, y2) is, such as ``'upper left'``."""
    x1, y1, x2, y2 = box
    return f'{"upper" if y1 + y2 < shape[0] else "lower"} {"left" if x1 + x2 < shape[1] else "right"}'


def describe_cells(white: Sequence[Sequence[float]], red: int, shape: tuple[int, int]) -> str:
    """A caption such as ``'one white cell at the upper left and eleven red cells'``, with the place of the largest.

    Args:
        white (Sequence): Boxes (x1, y1, x2, y2) of the white cells.
        red (int): Number of red cells.
        shape (Tuple[int, int]): Height and width of the image.
    """
    largest = max(white, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=None)
    place = '' if largest is None else f' at the {place_of(largest, shape)}'
    return f'{_cells("white", len(white))}{place} and {_cells("red", red)}'


GRAMMAR = re.compile(r'(\S+) white cells?(?: at the ((?:upper|lower) (?:left|right)))? and (\S+) red cells?')


def parts_of(caption: str) -> Parts:
    """Read a caption of :func:`describe_cells`."""
    found = GRAMMAR.fullmatch(caption)
    if found is None:
        return Parts(None, None, None)
    counts = dict(white=found[1], red=found[3])
    return Parts(frozenset(kind for kind, count in counts.items() if count != NUMBERS[0]), counts, found[2])
