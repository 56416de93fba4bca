"""Training from the corrections, started by the page and run by tools/train.py, and the comparison that follows it."""

import json
import os
import re
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen

from mmengine.config import Config

from ..apis.corrections import available_uses, training_config
from .session import AttentionEditor

PROGRESS = re.compile(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\]|Iter\(train\)\s+\[\s*(\d+)/(\d+)\]')
LOG_LINES = 200
STOPPED = 75  # exit status of a training that was told to stop and saved a checkpoint


class Training:
    """At most one training at a time, in a process of its own, and then a comparison on the held-out images.

    Files are in ``<out>/training/<number>_<use>/``: ``config.py``, ``log.txt``, the checkpoints, and of the comparison
    ``before_after.json`` with its pictures.

    Args:
        editor (AttentionEditor): The editor whose corrections are used.

    Attributes:
        state (str): ``'idle'``, ``'training'``, ``'comparing'``, ``'done'``, ``'stopped'`` or ``'failed'``.
    """

    def __init__(self, editor: AttentionEditor) -> None:
        self.editor, self.state, self.folder = editor, 'idle', None
        self._process: Popen | None = None
        self._lock = threading.Lock()

    def start(self, use: str) -> None:
        """Write the config and start training.

        Raises:
            ValueError: If one runs already, or the corrections cannot be used so.
        """
        editor = self.editor
        if use not in available_uses(editor.inferencer.config.model):
            raise ValueError(f'The corrections cannot be used as {use!r} for this network.')
        with self._lock:
            if self.state in ('training', 'comparing'):
                raise ValueError('A training is running: wait for it, or stop it.')
            cfg = training_config(editor.config, editor.checkpoint_file, editor.out, use)
            root = editor.out / 'training'
            number = 1 + max((int(path.name.split('_')[0]) for path in root.glob('[0-9]*_*')), default=0)
            self.folder = root / f'{number}_{use}'
            self.folder.mkdir(parents=True)
            cfg.dump(self.folder / 'config.py')
            self.state = 'training'
            threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Tell the training to stop: it saves a checkpoint, from which its command with ``--resume`` goes on."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    def command(self) -> list[str]:
        """The command line of the training."""
        return [sys.executable, _tool('train.py'), str(self.folder / 'config.py'), '--work-dir', str(self.folder)]

    def compare_command(self) -> list[str]:
        """The command line of the comparison."""
        checkpoints = sorted(self.folder.glob('*.pth'), key=lambda path: path.stat().st_mtime)
        if not checkpoints:
            raise FileNotFoundError(f'{self.folder} has no checkpoint.')
        before = self.editor.config, self.editor.checkpoint_file
        after = self.folder / 'config.py', checkpoints[-1]
        arguments = map(str, [*before, *after, '--out', self.folder / 'comparison'])
        return [sys.executable, _tool('analysis_tools/before_after.py'), *arguments]

    def _run(self) -> None:
        try:
            status = self._run_process(self.command())
            if status == 0:
                self.state = 'comparing'
                status = self._run_process(self.compare_command())
            self.state = {0: 'done', STOPPED: 'stopped', -15: 'stopped'}.get(status, 'failed')
        except OSError as error:
            with open(self.folder / 'log.txt', 'a') as log:
                print(error, file=log)
            self.state = 'failed'

    def _run_process(self, command: Sequence[str]) -> int:
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path)), 'PYTHONUNBUFFERED': '1'}
        with open(self.folder / 'log.txt', 'a') as log:
            self._process = Popen(command, stdin=DEVNULL, stdout=log, stderr=STDOUT, env=environment)
        return self._process.wait()

    def status(self) -> dict:
        """State, progress from 0 to 1, the end of the log, the command line and, when done, the comparison."""
        if self.folder is None:
            return dict(state=self.state)
        log = self.folder / 'log.txt'
        lines = log.read_text(errors='replace').splitlines() if log.is_file() else []
        result = self.folder / 'comparison/before_after.json'
        return dict(
            state=self.state,
            progress=self._progress(lines),
            log='\n'.join(lines[-LOG_LINES:]),
            command=' '.join(['python', *self.command()[1:]]),
            result=json.loads(result.read_text()) if self.state == 'done' else None,
        )

    def _progress(self, lines: Sequence[str]) -> float:
        for line in reversed(lines):
            if found := PROGRESS.search(line):
                epoch, step, steps, iteration, iterations = (int(value or 0) for value in found.groups())
                if iterations:
                    return iteration / iterations
                epochs = Config.fromfile(self.folder / 'config.py').train_cfg.max_epochs
                return (epoch - 1 + step / steps) / epochs
        return 0.0

    def picture(self, name: str) -> Path:
        """A picture of the comparison; a KeyError if there is none of this name."""
        path = (self.folder or Path('/nonexistent')) / 'comparison' / name
        if '/' in name or path.suffix != '.png' or not path.is_file():
            raise KeyError(f'There is no picture {name!r}.')
        return path


def _tool(name: str) -> str:
    """A file of tools/, in a clone or as mim finds it."""
    package = Path(__file__).parents[1]
    places = [package.parent / 'tools' / name, package / '.mim/tools' / name]
    return str(next((path for path in places if path.is_file()), places[0]))
