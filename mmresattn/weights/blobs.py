"""Weights of networks that were trained with Caffe and Caffe2, read without either and without running anything."""

import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from .safe_types import PlainArray, PlainDtype, refuse


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
    size = path.stat().st_size
    try:
        arrays = READERS[path.suffix](path)
        for name, array in arrays.items():
            if array.dtype.kind not in 'fiu' or array.dtype.itemsize > 8:
                raise ValueError(f'{name} is an array of {array.dtype}')
    except OSError:
        raise
    except Exception as error:  # damaged files raise anything
        raise ValueError(f'{path} ({size:,} bytes) is not a readable {path.suffix} file: {error}') from error
    return {name: array.astype(array.dtype.newbyteorder('='), copy=False) for name, array in arrays.items()}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise ValueError('it is not an archive, or a truncated one')
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > 100 * path.stat().st_size:
        raise ValueError(f'it would unpack to {unpacked:,} bytes')
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


class _Function:
    """What a pickle gets in place of a function or class, which it can call and not change."""

    __slots__ = ('call',)

    def __init__(self, call: Callable) -> None:
        self.call = call

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)

    def __setstate__(self, state: Any) -> None:
        refuse('Changing a function')


class _Array(PlainArray):
    """An array whose bytes may be a text, as Python 2 had them."""

    def __setstate__(self, state: tuple) -> None:
        *rest, raw = state
        super().__setstate__((*rest, raw.encode('latin1') if isinstance(raw, str) else raw))


def _encode(text: str, encoding: str) -> bytes:
    if encoding != 'latin1':
        refuse(f'The encoding {encoding!r}')
    return text.encode('latin1')


ALLOWED = {
    ('numpy', 'ndarray'): _Function(PlainArray),
    ('numpy', 'dtype'): _Function(PlainDtype),
    ('_codecs', 'encode'): _Function(_encode),
    ('collections', 'OrderedDict'): _Function(dict),
    # NumPy 2 renamed the module in which NumPy 1 pickled arrays.
    **{
        (f'numpy.{core}.multiarray', '_reconstruct'): _Function(lambda *_: np.ndarray.__new__(_Array, 0, np.uint8))
        for core in ('core', '_core')
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Function:
        return ALLOWED.get((module, name)) or refuse(f'{module}.{name}')

    def persistent_load(self, pid: Any) -> NoReturn:
        refuse('An object from outside of the file')


def _read_caffe2(path: Path) -> dict[str, np.ndarray]:
    with open(path, 'rb') as file:
        content = _Unpickler(file, encoding='latin1').load()  # Caffe2's were written by Python 2
    blobs = content.get('blobs', content) if isinstance(content, dict) else None
    if not isinstance(blobs, dict) or not all(
        isinstance(name, str) and isinstance(value, _Array | int | float) for name, value in blobs.items()
    ):
        raise ValueError('it is not a dict of arrays by name')
    return {name: np.array(value, subok=False) for name, value in blobs.items()}


READERS = {'.npz': _read_npz, '.caffemodel': _read_caffemodel, '.pkl': _read_caffe2}
