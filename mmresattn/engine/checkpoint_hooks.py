"""Checkpoints that are whole or not there, and weights that fit or are refused."""

import os
import shutil
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..compat.checkpoints import check_weights

WHOLE_FILES = 'mmresattn.whole_files'


@register_backend(WHOLE_FILES)
class WholeFilesBackend(LocalBackend):
    """MMEngine's files on a disk, where a file appears under its name once all of it is written."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file.

        Args:
            obj (bytes): What to write.
            filepath (str | Path): Where. A file that is there already stays as it is until the new one is whole.

        Raises:
            OSError: If it cannot be written, such as on a full disk. Nothing is left behind then.
        """
        path = Path(filepath)
        part = path.with_name(path.name + '.part')
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())  # some file systems find out only now that they are full
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            free = shutil.disk_usage(path.parent).free
            raise OSError(
                error.errno,
                f'{error.strerror}. {path} was not saved: it takes {len(obj) / 2**20:,.2f} MiB, and '
                f'{free / 2**20:,.2f} MiB are free in {path.parent.absolute()}. Earlier checkpoints are as they were. '
                'Make room, or keep fewer by default_hooks.checkpoint.max_keep_ckpts, and continue with --resume.',
            ) from error


class _RemovesLater:
    """A file backend whose removals wait until they are committed."""

    def __init__(self, backend) -> None:
        self.backend = backend
        self.outdated: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def remove(self, filepath: str) -> None:
        self.outdated.append(filepath)

    def commit(self) -> None:
        while self.outdated:
            self.backend.remove(self.outdated.pop())


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` that at no moment leaves a run without a whole checkpoint.

    MMEngine writes a checkpoint in place, so that a process killed meanwhile, or a full disk, leaves a part of one;
    and it removes the outdated one, or the best one so far, before the new one is there. Here files get their names
    when they are whole (on local disks; other backends do as they do), and outdated ones go after that: there must be
    room for one checkpoint more than ``max_keep_ckpts``.

    Arguments are those of MMEngine's ``CheckpointHook``.
    """

    def before_train(self, runner: Runner) -> None:
        """Choose how files are written and removed."""
        super().before_train(runner)
        if type(self.file_backend) is LocalBackend and self.file_client_args is None:
            self.backend_args = dict(backend=WHOLE_FILES)
        self.file_backend = _RemovesLater(self.file_backend)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self.file_backend.commit()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self.file_backend.commit()


@HOOKS.register_module()
class CheckWeightsHook(Hook):
    """Refuses a checkpoint that does not fit the model, of which MMEngine would load what fits and only warn.

    Args:
        new_head (bool): Whether a head may keep its initial weights where the checkpoint has none for it or others, as
            in fine-tuning on other classes. Everything else must fit in any case. Defaults to False.
    """

    priority = 'LOWEST'  # an EMAHook changes what will be loaded

    def __init__(self, new_head: bool = False) -> None:
        self.new_head = new_head

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes.

        Raises:
            RuntimeError: If they differ, or a run shall be resumed from weights alone.
        """
        source = runner.cfg.get('load_from') or 'The checkpoint'
        if runner.cfg.get('resume') and (lacking := {'meta', 'message_hub', 'optimizer'} - checkpoint.keys()):
            raise RuntimeError(
                f'{source} cannot be resumed from: it lacks {", ".join(sorted(lacking))}. To begin a training with '
                f'its weights, give it as --cfg-options load_from={source}, without --resume.'
            )
        check_weights(runner.model, checkpoint, source, self.new_head)
