"""What a checkpoint may contain besides tensors and plain Python values, and what stands in for it while it is read."""

import pickle
import re
from collections.abc import Callable
from typing import NoReturn

import numpy as np
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

# All that MMEngine's checkpoints look up by `getattr`.
METHODS = {
    HistoryBuffer: ('mean', 'max', 'min', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def refuse(what: str) -> NoReturn:
    raise pickle.UnpicklingError(f'{what} is refused: a checkpoint could run code by it.')


def read_method(owner: type, name: str) -> Callable:
    """Stands for ``getattr``, which could reach any code through an object's ``__globals__``."""
    for known, names in METHODS.items():
        if owner is known and name in names:
            return getattr(known, name)
    refuse(f'The attribute {name!r} of {owner!r}')


class PlainDtype:
    """Stands for ``numpy.dtype``: booleans, integers and floats of a fixed size."""

    def __init__(self, kind: str, *unused) -> None:
        if not isinstance(kind, str) or not re.fullmatch('b1|[iu][1248]|f[248]', kind):
            refuse(f'The NumPy type {kind!r}')
        self.dtype = np.dtype(kind)

    def __setstate__(self, state: tuple) -> None:
        version, order, *rest = state
        if order not in ('<', '>', '|', '=') or rest[:3] != [None] * 3:
            refuse('A NumPy type with fields')
        self.dtype = self.dtype.newbyteorder(order)


class PlainArray(np.ndarray):
    """Stands for ``numpy.ndarray``. Its memory is always its own, and as large as its shape says."""

    def __new__(cls, *args):
        refuse('An array over memory that is not its own')

    def __setstate__(self, state: tuple) -> None:
        version, shape, kind, fortran, raw = state
        if not isinstance(kind, PlainDtype) or not isinstance(raw, bytes):
            refuse('An array of Python objects')
        values = np.frombuffer(raw, kind.dtype).reshape(shape, order='F' if fortran else 'C')
        super().__setstate__((version, values.shape, kind.dtype, fortran, raw))

    def __reduce__(self):
        return np.array(self, subok=False).__reduce__()  # saved as NumPy's own


def read_array(cls: type, shape: tuple, kind: str) -> PlainArray:
    """Stands for NumPy's ``_reconstruct``, which makes an empty array; the state that follows fills it."""
    return np.ndarray.__new__(PlainArray, 0, np.uint8)


def read_number(kind: PlainDtype, raw: bytes) -> np.generic:
    """Stands for NumPy's ``scalar``."""
    if not isinstance(kind, PlainDtype) or not isinstance(raw, bytes) or len(raw) != kind.dtype.itemsize:
        refuse('A NumPy number that is none')
    return np.frombuffer(raw, kind.dtype)[0]


def no_bytes() -> bytes:
    """Stands for ``bytes``, which could ask for any amount of memory."""
    return b''


SAFE_TYPES = [
    HistoryBuffer,  # the logged values in the message hub of every MMEngine checkpoint
    OneCycleParamScheduler,  # owner of a method in the state of a one-cycle schedule
    (read_method, 'builtins.getattr'),  # the methods of both
    (no_bytes, 'builtins.bytes'),  # the values of one that is empty
    (PlainArray, 'numpy.ndarray'),  # the values of a HistoryBuffer
    (PlainDtype, 'numpy.dtype'),  # their type
    # NumPy 2 renamed the module in which NumPy 1 pickled arrays, and numbers (logged values, metadata of data sets).
    *((read_array, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
    *((read_number, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
]
