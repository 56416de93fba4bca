"""Files that are there whole or not at all, and work dirs that belong to one training."""

import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PART = '.part'  # how the names of unfinished files end
LOCK = '.training.lock'
_locks = {}  # of this process, by work dir; closing any of them would release it


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file so that under its name is the old or the new one at any moment, also after a power cut.

    Args:
        path (str | Path): File to write; its folder is made if need be.
        content (bytes): What to write.

    Raises:
        OSError: If it cannot be written, such as on a full disk. Nothing is left behind then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}')  # nobody else's
    try:
        with open(part, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # some file systems find out only now that they are full
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder that gets its name when the block ends without an error; its parents are made if need be.

    Yields:
        Path: An empty folder beside it, to fill. After an error it stays; the next call empties it.
    """
    part = path.with_name(f'{path.name}{PART}')
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    part.rename(path)


def lock_work_dir(work_dir: str | Path) -> None:
    """Claim a work dir for this process until it ends, and remove what a killed training left unfinished in it.

    The work dir is made if need be.

    Raises:
        RuntimeError: If another process trains in it.
    """
    path = Path(work_dir).resolve() / LOCK
    if fcntl is None or path in _locks:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, 'a+')
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or 'another process'
        file.close()
        raise RuntimeError(
            f'{path.parent} is in use by another training ({owner}). Give this one its own --work-dir, or wait.'
        ) from error
    except OSError:  # a file system without locks
        pass
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
    file.flush()
    _locks[path] = file
    for part in path.parent.glob(f'.*{PART}'):
        part.unlink(missing_ok=True)
