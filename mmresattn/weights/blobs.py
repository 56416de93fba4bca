"""Weights of networks that were trained with Caffe and Caffe2, read without either and without running anything."""

import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

TYPES = ('f2', 'f4', 'f8', 'i4', 'i8')


def read_blobs(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by name of a file that Caffe or Caffe2 wrote, or of an ``.npz`` file.

    Args:
        path (str | Path): A ``.caffemodel``, whose blobs become ``<layer name>.<k>``; a ``.pkl`` of Caffe2, a pickled
            dict of arrays, or of ``blobs`` and such a dict; or an ``.npz`` of NumPy.

    Returns:
        dict[str, np.ndarray]: The arrays; numbers of a ``.pkl`` file are arrays of one value.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is damaged, of another kind, or holds anything but numbers; nothing in it is run.
    """
    path = Path(path).expanduser()
    if path.suffix not in READERS:
        raise ValueError(f'{path} is not one of {", ".join(READERS)}.')
    with open(path, 'rb'):  # a missing file says so by itself
        pass
    try:
        return READERS[path.suffix](path)
    except (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, EOFError, RuntimeError, ValueError, TypeError,
            AttributeError, IndexError, KeyError, OverflowError, MemoryError) as error:  # fmt: skip
        raise ValueError(f'{path} ({path.stat().st_size:,} bytes) is no readable {path.suffix} file: {error}') from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise ValueError('it is not an archive, or a truncated one')
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


# --- Caffe: a protocol buffer, NetParameter of caffe.proto -----------------------------------------------------------


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An integer of seven bits a byte, of which the last one is below 128, and where the next thing starts."""
    value = shift = 0
    while message[at] >= 128:
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | message[at] << shift, at + 1


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers and values of the fields of a message: an integer, or the bytes of anything else."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = divmod(key, 8)
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f'there is no protocol buffer at byte {at}')
        length, at = _varint(message, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
        if length > len(message) - at:
            raise ValueError('it is truncated')
        yield number, message[at : at + length]
        at += length


def _caffe_blob(message: memoryview) -> np.ndarray:
    shape, values, dims = [], [np.zeros(0, np.float32)], None
    for number, value in _fields(message):
        if number in (5, 8):
            values.append(np.frombuffer(value, '<f4' if number == 5 else '<f8'))
        elif number in (1, 2, 3, 4):  # as files say it from before there was a shape
            shape.append(value)
        elif number == 7:
            dims = [dim for _, packed in _fields(value) for dim in _integers(packed)]
    return np.concatenate([part.astype(values[-1].dtype) for part in values]).reshape(shape if dims is None else dims)


def _integers(packed: int | memoryview) -> list[int]:
    if isinstance(packed, int):
        return [packed]
    integers, at = [], 0
    while at < len(packed):
        integer, at = _varint(packed, at)
        integers.append(integer)
    return integers


def _read_caffemodel(path: Path) -> dict[str, np.ndarray]:
    blobs = {}
    for number, layer in _fields(memoryview(path.read_bytes())):
        if number not in (2, 100):  # layers as they were before 2014, and as they are
            continue
        name_field, blob_field = (4, 6) if number == 2 else (1, 7)
        fields = list(_fields(layer))
        name = next(bytes(value).decode() for field, value in fields if field == name_field)
        arrays = [_caffe_blob(value) for field, value in fields if field == blob_field]
        blobs.update({f'{name}.{k}': array for k, array in enumerate(arrays)})
    if not blobs:
        raise ValueError('it has no blobs')
    return blobs


# --- Caffe2: a pickle, of which only arrays, numbers, texts, dicts, lists and tuples are taken -----------------------


class _StandIn:
    """What a pickle gets in place of a function of NumPy, and cannot change."""

    __slots__ = ('function',)

    def __init__(self, function: Callable) -> None:
        object.__setattr__(self, 'function', function)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError('it changes a function')

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError('it changes a function')


class _DType:
    def __init__(self, kind: str, *flags: Any) -> None:
        if kind not in TYPES:
            raise pickle.UnpicklingError(f'it holds an array of {kind!r}; expected one of {", ".join(TYPES)}')
        self.dtype = np.dtype(kind)

    def __setstate__(self, state: tuple) -> None:
        _, order, *rest = state
        if order not in ('<', '>', '=', '|') or rest[:3] != [None, None, None]:
            raise pickle.UnpicklingError('it holds an array of records')
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, content = state
        content = content.encode('latin1') if isinstance(content, str) else content
        if not (isinstance(content, bytes) and isinstance(kind, _DType)):
            raise pickle.UnpicklingError('it holds an array of objects')
        if not all(isinstance(n, int) and n >= 0 for n in shape) or prod(shape) * kind.dtype.itemsize != len(content):
            raise pickle.UnpicklingError(f'an array of shape {shape} has {len(content)} bytes')
        array = np.frombuffer(content, kind.dtype).reshape(shape, order='F' if fortran else 'C')
        self.array = array.astype(kind.dtype.newbyteorder('='))


def _scalar(kind: _DType, content: str | bytes) -> _Array:
    array = _Array()
    array.__setstate__((1, (), kind, False, content))
    return array


def _encode(text: str, encoding: str) -> bytes:
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'it encodes a text as {encoding!r}')
    return text.encode('latin1')


STAND_INS = {
    ('numpy', 'ndarray'): _StandIn(_Array),
    ('numpy', 'dtype'): _StandIn(_DType),
    ('_codecs', 'encode'): _StandIn(_encode),
    ('collections', 'OrderedDict'): _StandIn(dict),
    # NumPy 2 renamed the module in which NumPy 1 pickled these.
    **{(f'numpy.{core}.multiarray', '_reconstruct'): _StandIn(lambda *_: _Array()) for core in ('core', '_core')},
    **{(f'numpy.{core}.multiarray', 'scalar'): _StandIn(_scalar) for core in ('core', '_core')},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _StandIn:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}, which was refused and not run')
        return STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> None:
        raise pickle.UnpicklingError('it asks for an object from outside of the file')


def _read_caffe2(path: Path) -> dict[str, np.ndarray]:
    with open(path, 'rb') as file:
        content = _Unpickler(file, encoding='latin1').load()  # Caffe2's were written by Python 2
    blobs = content.get('blobs', content) if isinstance(content, dict) else None
    if not isinstance(blobs, dict) or not all(isinstance(name, str) for name in blobs):
        raise ValueError('it is no dict of arrays')
    arrays = {}
    for name, value in blobs.items():
        if not isinstance(value, _Array | int | float) or not hasattr(value, 'array') and isinstance(value, _Array):
            raise ValueError(f'{name} is no array')
        arrays[name] = value.array if isinstance(value, _Array) else np.array(value)
    return arrays


READERS = {'.npz': _read_npz, '.caffemodel': _read_caffemodel, '.pkl': _read_caffe2}
