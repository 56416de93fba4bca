"""A folder of corrected attention maps, which several editors and people may share."""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath

from ..utils import listed
from ..weights import write_whole

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

MANIFEST, MAPS, HISTORY = 'manifest.jsonl', 'maps', 'history'
ACTIONS = ('save', 'take back', 'bring back', 'skip', 'return to')


class ReplacedMeanwhile(ValueError):
    """Somebody else has saved, or taken back, the map that was to be replaced."""


class CorrectionLog:
    """Corrected maps and who made them, as a log that is only ever appended to.

    Files in the folder:

    - ``maps/<layer>/<image>.png``: the current maps, grey, 16 bits, for
      :class:`~mmresattn.datasets.LoadAttentionMap` (``map_root=<folder>/maps/<layer>``).
    - ``manifest.jsonl``: one line per action, ``save``, ``take back``, ``bring back``, ``skip`` or ``return to`` (an
      image that was skipped), with ``image``, ``annotator``, ``time`` (ISO 8601, UTC) and, except for the last two,
      ``layer``. A ``save`` also has ``map`` (relative to the folder), its ``sha256`` and what the caller adds. The last
      line about an image and a layer counts.
    - ``history/<sha256>.png``: every map that was ever saved.

    A map is saved once its line is on disk. The lock of the folder is held for every action, and lines of other
    processes are read first, so that no process loses another's work. A process that is killed leaves at most an
    incomplete last line, which the next one removes, or a map whose line is missing, which :meth:`check` mends.

    Args:
        folder (str | Path): The folder. The first action makes it; reading writes nothing.
        annotator (str): Name of the person, for the lines that this object appends. Defaults to ''.

    Attributes:
        saved (Dict[Tuple[str, str], dict]): By image and layer the ``save`` lines of the current maps.
        taken_back (Dict[Tuple[str, str], dict]): Those of maps that were taken back.
        skipped (Dict[str, dict]): By image the lines that skip it.

    Raises:
        ValueError: If the manifest has a line that no editor wrote.
    """

    def __init__(self, folder: str | Path, annotator: str = '') -> None:
        self.folder, self.annotator = Path(folder).expanduser().resolve(), annotator
        self._thread_lock = threading.Lock()
        self._forget()
        self.refresh()

    def _forget(self) -> None:
        self.saved, self.taken_back, self.skipped = {}, {}, {}
        self._versions, self._read, self._lines = set(), 0, 0

    def refresh(self) -> None:
        """Read what others have appended."""
        with self._thread_lock:
            self._read_new_lines()

    def save(self, entry: dict, png: bytes, replaces: str | None | bool = True) -> dict:
        """Save a map.

        Args:
            entry (dict): ``image``, ``layer`` and anything else that JSON can hold.
            png (bytes): The map.
            replaces (str | bool, optional): ``sha256`` of the map that the person saw, None for none, to refuse if
                there is another one by now. Defaults to True: replace any.

        Returns:
            dict: The line of the manifest.

        Raises:
            ReplacedMeanwhile: If the current map is not ``replaces``.
            ValueError: If a link in the folder leads elsewhere.
        """
        key = entry['image'], entry['layer']
        with self._locked():
            current = self.saved.get(key)
            if replaces is not True and (current and current['sha256']) != replaces:
                who = f'{current["annotator"] or "Somebody"} saved' if current else 'Somebody took back'
                raise ReplacedMeanwhile(f'{who} this map while you were editing it.')
            digest = hashlib.sha256(png).hexdigest()
            entry = {**entry, 'map': map_file(*key), 'sha256': digest}
            for name in (f'{HISTORY}/{digest}.png', entry['map']):
                write_whole(self.inside(name), png)
            return self._append('save', entry)

    def take_back(self, image: str, layer: str) -> None:
        """Remove a saved map, which stays in the history.

        Raises:
            KeyError: If there is none.
        """
        with self._locked():
            if (image, layer) not in self.saved:
                raise KeyError(f'There is no saved map of {layer} for {image} to take back.')
            self._append('take back', dict(image=image, layer=layer))
            self.inside(map_file(image, layer)).unlink(missing_ok=True)

    def bring_back(self, image: str, layer: str) -> dict:
        """Restore the last map that was saved, after it was taken back or its file was deleted or changed by hand.

        Returns:
            dict: Its ``save`` line.

        Raises:
            KeyError: If none was ever saved.
            FileNotFoundError: If it was deleted from the history as well.
        """
        with self._locked():
            entry = self.taken_back.get((image, layer)) or self.saved.get((image, layer))
            if entry is None:
                raise KeyError(f'There is no map of {layer} for {image} to bring back.')
            path = self.inside(f'{HISTORY}/{entry["sha256"]}.png')
            if not path.is_file():
                raise FileNotFoundError(f'{path} was deleted: this map cannot be brought back.')
            write_whole(self.inside(entry['map']), path.read_bytes())
            if (image, layer) in self.taken_back:
                self._append('bring back', dict(image=image, layer=layer))
            return entry

    def skip(self, image: str, skip: bool = True) -> None:
        """Note that an image needs no correction, or that this is not sure any more."""
        with self._locked():
            if skip != (image in self.skipped):
                self._append('skip' if skip else 'return to', dict(image=image))

    def check(self) -> list[str]:
        """Compare the maps with the manifest, and finish what a killed process began.

        Returns:
            List[str]: What was deleted, changed or added by hand, in words.
        """
        notes = {'deleted': [], 'changed': [], 'added': []}
        with self._locked():
            files = {path.relative_to(self.folder).as_posix() for path in self.folder.glob(f'{MAPS}/*/**/*.png')}
            # A process that was killed in the middle of saving leaves a map that no line names.
            unnamed = {path.stem for path in self.inside(HISTORY).glob('*.png')} - self._versions
            for entry in self.saved.values():
                name = entry['map']
                digest = _digest(self.inside(name)) if name in files else None
                if digest in unnamed:
                    saved = self.inside(f'{HISTORY}/{entry["sha256"]}.png').read_bytes()
                    write_whole(self.inside(name), saved)
                elif digest != entry['sha256']:
                    notes['changed' if digest else 'deleted'].append(name)
            taken_back = {(entry['map'], entry['sha256']) for entry in self.taken_back.values()}
            for name in sorted(files - {entry['map'] for entry in self.saved.values()}):
                digest = _digest(self.inside(name))
                if digest in unnamed or (name, digest) in taken_back:
                    self.inside(name).unlink()
                else:
                    notes['added'].append(name)
        endings = {
            'deleted': 'Bring them back or take them back in the editor.',
            'changed': 'Training uses them as they are now; "Bring back" restores what was saved.',
            'added': 'They are not in the manifest, but training would use them.',
        }
        return [
            f'{len(names)} map{"s were" if len(names) > 1 else " was"} {what} by hand: {listed(names)}. {endings[what]}'
            for what, names in notes.items()
            if names
        ]

    def inside(self, name: str) -> Path:
        """The path of a file in the folder.

        Raises:
            ValueError: If a link leads elsewhere.
        """
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder) or path == self.folder:
            raise ValueError(f'{name!r} is not within {self.folder}: it leads to {path}. Remove the link.')
        return path

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder against other threads and processes; what they appended is read first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._thread_lock, open(self.folder / '.lock', 'ab') as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            self._read_new_lines()
            yield

    def _append(self, action: str, entry: dict) -> dict:
        now = datetime.now(timezone.utc).isoformat(timespec='milliseconds')
        entry = {'action': action, **entry, 'annotator': self.annotator, 'time': now}
        path = self.inside(MANIFEST)
        with open(path, 'r+b' if path.exists() else 'w+b') as file:
            file.truncate(self._read)  # removes the incomplete line of a killed process
            file.seek(self._read)
            file.write(json.dumps(entry).encode() + b'\n')
            file.flush()
            os.fsync(file.fileno())
        self._read_new_lines()
        return entry

    def _read_new_lines(self) -> None:
        path = self.inside(MANIFEST)
        size = path.stat().st_size if path.exists() else 0
        if size < self._read:  # somebody has shortened or replaced it
            self._forget()
        if size == self._read:
            return
        with open(path, 'rb') as file:
            file.seek(self._read)
            new = file.read()
        for line in new[: new.rfind(b'\n') + 1].splitlines(keepends=True):
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f'{path}, line {self._lines + 1}, was not written by this editor ({type(error).__name__}: {error}).'
                    ' Mend or remove the line, or choose another folder for the corrections.'
                ) from error
            self._read += len(line)
            self._lines += 1

    def _apply(self, entry: dict) -> None:
        action, image = entry['action'], entry['image']
        _ = entry['annotator'], entry['time']
        if action not in ACTIONS:
            raise ValueError(f'the action is {action!r}')
        if action in ('skip', 'return to'):
            self.skipped.pop(image, None)
            if action == 'skip':
                self.skipped[image] = entry
            return
        key = image, entry['layer']
        self.inside(map_file(*key))
        if action == 'save':
            if entry['map'] != map_file(*key) or not re.fullmatch('[0-9a-f]{64}', entry['sha256']):
                raise ValueError(f'its map is {entry["map"]!r}')
            self.taken_back.pop(key, None)
            self.saved[key] = entry
            self._versions.add(entry['sha256'])
        elif action == 'take back':
            self.taken_back[key] = self.saved.pop(key)
        else:
            self.saved[key] = self.taken_back.pop(key)


def map_file(image: str, layer: str) -> str:
    """Where the map of an image is, relative to the folder."""
    return PurePosixPath(MAPS, layer, image).with_suffix('.png').as_posix()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
