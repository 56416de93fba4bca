"""Where a checkpoint is: the local file of a path or address."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_file_backend
from mmengine.runner import checkpoint as mmengine_checkpoint

from .packages import package_file

PACKAGE = Path(__file__).parents[1]


def index_folder() -> Path:
    """The folder of model-index.yml, configs and weights: the clone, or ``mmresattn/.mim`` of an installed wheel."""
    index = PACKAGE / '.mim' / 'model-index.yml'  # in an editable install a link into the clone
    return index.resolve().parent if index.exists() else PACKAGE.parent


def is_remote(address: str) -> bool:
    """Whether an address has a scheme, such as ``https://``."""
    return '://' in str(address)


def existing(address: str | Path) -> str:
    """An address, in which a path has its ``~`` expanded.

    Raises:
        FileNotFoundError: If it is a path and there is no such file.
    """
    if is_remote(address):
        return str(address)
    path = os.path.expanduser(address)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'There is no checkpoint {path}.')
    return path


@contextmanager
def local_file(address: str | Path) -> Iterator[str]:
    """The file of a checkpoint on this machine, downloaded if need be.

    Args:
        address (str | Path): A path; ``http(s)://``; ``torchvision://`` or ``modelzoo://``, ``open-mmlab://`` or
            ``openmmlab://`` and ``mmcls://`` with a name in MMEngine's tables; ``mmresattn://`` with the name of a file
            in ``weights`` of this repository or in the folder that the variable ``MMRESATTN_WEIGHTS`` names;
            ``package://`` with the name of an installed Python package; or what MMEngine's file backends read
            (``s3://``, ``petrel://``).

    Yields:
        str: Its path.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If the scheme or the name is unknown.
    """
    scheme, _, name = str(address).partition('://') if is_remote(address) else ('', '', address)
    if scheme in ('http', 'https'):
        yield _downloaded(str(address))
    elif scheme in ('torchvision', 'modelzoo'):
        yield _downloaded(_named(name, mmengine_checkpoint.get_torchvision_models(), address))
    elif scheme == 'mmcls':
        yield _downloaded(_named(name, mmengine_checkpoint.get_mmcls_models(), address))
    elif scheme in ('open-mmlab', 'openmmlab'):
        name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
        found = _named(name, mmengine_checkpoint.get_external_models(), address)
        if is_remote(found):
            yield _downloaded(found)
        else:
            yield existing(Path(mmengine_checkpoint._get_mmengine_home(), found))
    elif scheme == 'mmresattn':
        yield _own(name)
    elif scheme == 'package':
        yield package_file(name)
    elif scheme.rpartition(':')[-1] in ('s3', 'petrel'):
        with get_file_backend(str(address), backend_args=dict(backend='petrel')).get_local_path(str(address)) as path:
            yield str(path)
    elif scheme == '':
        yield existing(name)
    else:
        raise ValueError(
            f'{address} has an unknown scheme. A checkpoint is a path or begins with http://, https://, '
            'torchvision://, open-mmlab://, mmcls://, mmresattn://, package://, s3:// or petrel://.'
        )


def _named(name: str, table: Mapping[str, str], address: str) -> str:
    if name not in table:
        raise ValueError(f'{address}: there are no weights of that name.')
    return table[name]


def _own(name: str) -> str:
    file = Path(os.environ.get('MMRESATTN_WEIGHTS') or index_folder() / 'weights').expanduser() / name
    if not file.is_file():
        raise FileNotFoundError(
            f'There is no {file}. Weights are in weights/ of the repository of mmresattn, not in its wheel: '
            'clone it, and set the variable MMRESATTN_WEIGHTS to that folder.'
        )
    return str(file)


def _downloaded(url: str) -> str:
    """The file of a URL in PyTorch's cache. Only the first process downloads."""
    name = Path(urlparse(url).path).name
    if not name:
        raise ValueError(f'{url} does not end in the name of a file.')
    path = Path(torch.hub.get_dir(), 'checkpoints', name)
    try:
        if get_rank() == 0 and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=os.isatty(0))
    except OSError as error:
        raise FileNotFoundError(f'{url} could not be downloaded to {path}: {error}') from error
    finally:
        barrier()
    return existing(path)
