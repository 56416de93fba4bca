"""The one way by which weights come into this package: any address, and nothing in it is run."""

import json
import os
import pickle
import re
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .addresses import local_file
from .packages import PACKAGES, SCHEME
from .safe_types import SAFE_TYPES

TRUSTED = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'  # PyTorch's variable for files whose author is trusted
LEGACY = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # how torch.save began before it wrote zip archives
REFUSED = 'GLOBAL|refused|reduce for|an only (build|create)|Unsupported operand'
METADATA = 'mmresattn'  # the key of our JSON in a .safetensors file
CONFIGS = (('meta', 'config'), ('meta', 'cfg'), ('message_hub', 'runtime_info', 'cfg'))
_loading = threading.Lock()  # PyTorch's list of safe types belongs to the whole process


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used. The message says why."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint that is incomplete or corrupt."""


class UnsafeCheckpoint(CheckpointError, pickle.UnpicklingError):
    """A checkpoint that holds more than weights and training state, so that reading it could run code."""


def read_checkpoint(address: str | Path, map_location: Any = 'cpu') -> dict:
    """Read a checkpoint from any address. Only tensors and plain values are unpickled; no text in it is evaluated.

    The variable ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1`` is PyTorch's own way to say that a source is trusted.

    Args:
        address (str | Path): See :func:`~mmresattn.weights.addresses.local_file`. ``.safetensors`` files are read as
            such, all others with ``torch.load``.
        map_location (str | torch.device, optional): Device of the weights. Defaults to the CPU; None leaves them where
            they were.

    Returns:
        dict: What the file holds, with at least

        - ``state_dict``: weights by name, without DDP's ``module.``; from the key ``state_dict``, ``model_state_dict``
          or ``model``, or the whole file;
        - ``meta``: what is known of them, such as ``dataset_meta`` with the names of the classes; may be empty.

    Raises:
        CheckpointError: If the file has no weights, or cannot be read.
        DamagedCheckpoint: If it is incomplete or corrupt.
        FileNotFoundError: If it is not there.
        UnsafeCheckpoint: If it holds more than weights and training state.
        ValueError: If the scheme of the address is unknown.
    """
    return unwrap(read_content(address, map_location), str(address))


def unwrap(content: dict, source: str) -> dict:
    """Bring what a checkpoint holds into the form that :func:`read_checkpoint` returns."""
    key = next((key for key in ('state_dict', 'model_state_dict', 'model') if key in content), None)
    state = content if key is None else content[key]
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f'{source} has no weights by name: {key or "the file"} is {_kind(state)}.')
    for name, weight in state.items():
        if not isinstance(name, str) or not isinstance(weight, Tensor):
            where = f'keys {", ".join(map(str, list(state)[:8]))}' if key is None else f'{key}[{name!r}]'
            raise CheckpointError(f'{source} has no weights by name: found {where} with {_kind(weight)}.')
    prefix = 'module.' if all(name.startswith('module.') for name in state) else ''
    versions = getattr(state, '_metadata', None)
    state = OrderedDict((name.removeprefix(prefix), weight) for name, weight in state.items())
    state._metadata = OrderedDict(  # versions of modules, by which they rename old weights
        (name.removeprefix(prefix), version)
        for name, version in (versions.items() if isinstance(versions, dict) else ())
        if isinstance(name, str) and isinstance(version, dict)
    )
    meta = content.get('meta') if key else None
    return {**(content if key else {}), 'state_dict': state, 'meta': meta if isinstance(meta, dict) else {}}


def read_content(address: str | Path, map_location: Any = None) -> dict:
    """What a checkpoint holds, as :func:`read_checkpoint` but not unwrapped: the form in which MMEngine expects it.

    The texts of configs are left out: MMEngine would execute them to resume a training or to infer without a config.
    """
    with local_file(address) as path:
        content = (_read_safetensors if path.endswith('.safetensors') else _read_pickle)(path, map_location)
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} ({_size(path)}) holds {_kind(content)}; a checkpoint is a dict of weights.')
    for *place, key in CONFIGS:
        holder = content
        for name in place:
            holder = holder.get(name) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder.pop(key, None)
    if str(address).startswith('mmcls://'):  # MMEngine's scheme for the backbone of a classifier
        state = content.get('state_dict', content)
        return {'state_dict': {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}}
    if str(address).startswith(SCHEME):
        rename = PACKAGES[str(address).removeprefix(SCHEME)]
        return {'state_dict': {rename(name): weight for name, weight in content.items()}}
    return content


def check_intact(path: str | Path) -> None:
    """Check a file that ``torch.save`` wrote without reading its weights: its directory and its checksums.

    Raises:
        DamagedCheckpoint: If it is incomplete or corrupt.
        CheckpointError: If ``torch.save`` cannot have written it.
    """
    if not zipfile.is_zipfile(path):  # the directory of an archive is its end
        raise _damaged(path, 'the end is missing')
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.filename.endswith('/constants.pkl') for entry in entries):
                raise CheckpointError(
                    f'{path} ({_size(path)}) is a TorchScript archive, written by torch.jit.save. Load it with '
                    'torch.jit.load and save its state_dict() with torch.save.'
                )
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise CheckpointError(f'{path} ({_size(path)}) is a compressed archive, which torch.save never writes.')
            if sum(entry.file_size for entry in entries) > os.path.getsize(path):
                raise CheckpointError(f'{path} ({_size(path)}) claims to hold more bytes than it has.')
            for entry in entries:
                if entry.CRC:  # PyTorch can be told to leave checksums out
                    with archive.open(entry) as part:
                        while part.read(1 << 22):
                            pass
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, (CheckpointError, PermissionError)):
            raise
        raise _damaged(path, error) from error


def _read_pickle(path: str, map_location: Any) -> Any:
    trusted = os.environ.get(TRUSTED, '').lower() in ('1', 'y', 'yes', 'true')
    with open(path, 'rb') as file:
        start = file.read(len(LEGACY))
    zipped = start.startswith(b'PK')
    if zipped:
        check_intact(path)
    try:
        # torch.load itself decides on `weights_only`, by the variable that says that a file is trusted.
        with _loading, _safe_types():
            if start == LEGACY and not trusted:
                from torch._subclasses import FakeTensorMode

                with FakeTensorMode():  # a file of this kind says how much memory to take before it shows what it has
                    _check_sizes(path, torch.load(path, map_location='cpu'))
            content = torch.load(path, map_location=map_location)
        if not trusted:
            _check_sizes(path, content)
    except (CheckpointError, MemoryError, PermissionError):
        raise
    except Exception as error:  # damaged files raise anything
        # Of PyTorch's message only the line that says what is wrong: the others advise to trust the file.
        lines = str(error).splitlines() or ['']
        line = next((line for line in lines if re.search(REFUSED, line)), lines[0]).split('. ')[0].rstrip('.')
        reason = f'{type(error).__name__}: {line.rpartition("WeightsUnpickler error: ")[2]}'
        pickled = zipped or start[:1] == b'\x80' and start != LEGACY  # zip archives are known to be intact
        if isinstance(error, pickle.UnpicklingError) and (pickled or re.search('GLOBAL|refused|reduce for', line)):
            raise UnsafeCheckpoint(
                f'{path} ({_size(path)}) was refused, because reading it could run code on this machine: it holds more '
                f'than weights and training state ({reason}). Nothing in it was run. Ask its author for the weights '
                'as .safetensors, which tools/model_converters/publish_weights.py writes. Only if you trust its '
                f'author: set {TRUSTED}=1 for this command.'
            ) from error
        if zipped:  # intact
            raise CheckpointError(f'{path} ({_size(path)}) could not be read. {reason}.') from error
        if start == LEGACY:
            raise _damaged(path, reason) from error
        raise CheckpointError(f'{path} ({_size(path)}) is not a checkpoint: torch.save did not write it.') from error
    return content


def _read_safetensors(path: str, map_location: Any) -> dict:
    device = map_location if isinstance(map_location, str | torch.device) else 'cpu'
    try:
        with safe_open(path, 'pt', device=str(device)) as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise _damaged(path, error) from error
    try:
        meta = json.loads(metadata.get(METADATA, '{}'))
    except (ValueError, RecursionError):
        meta = {}
    return dict(state_dict=state, meta=meta if isinstance(meta, dict) else {})


def _check_sizes(path: str, content: Any) -> None:
    """Refuse tensors that claim more memory than the file has bytes, before anything touches them."""
    storages, largest = {}, 0
    for tensor in _tensors(content):
        largest = max(largest, tensor.numel() * tensor.element_size())
        if tensor.layout is torch.strided:
            storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
    if (claimed := max(largest, sum(storages.values()))) > os.path.getsize(path):
        raise _damaged(path, f'it claims to hold {claimed:,} bytes of weights')


@contextmanager
def _safe_types() -> Iterator[None]:
    """PyTorch's list of safe types with ours, which win over others of the same names."""
    before = torch.serialization.get_safe_globals()
    ours = {known[1] for known in SAFE_TYPES if isinstance(known, tuple)}
    others = [
        known
        for known in before
        if (known[1] if isinstance(known, tuple) else f'{known.__module__}.{known.__qualname__}') not in ours
    ]
    try:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([*others, *SAFE_TYPES])
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _tensors(content: Any) -> Iterator[Tensor]:
    """Every tensor in nested dicts, lists and tuples, each container once: a small file may name one many times."""
    stack, done = [content], set()
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in done:
            done.add(id(value))
            stack += value.values() if isinstance(value, dict) else value


def _damaged(path: str | Path, reason: Any) -> DamagedCheckpoint:
    return DamagedCheckpoint(
        f'{path} ({_size(path)}) is damaged, that is incomplete or corrupt: {str(reason).rstrip(".")}. Download or '
        'copy it again. To continue a training, give --resume without a path: it takes the newest intact checkpoint.'
    )


def _size(path: str | Path) -> str:
    return f'{os.path.getsize(path):,} bytes'


def _kind(value: Any) -> str:
    return f'a {type(value).__name__}'
