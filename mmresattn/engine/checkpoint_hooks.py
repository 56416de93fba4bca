"""Checkpoints that are whole or not there, and weights that fit or are refused."""

import shutil
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.utils import get_ori_model

from ..weights import CheckpointError, load_weights, record, write_whole
from ..weights.loader import unwrap
from ..weights.record import KEY

WHOLE_FILES = 'mmresattn.whole_files'
STOPPED = 'stopped.pth'  # of a training that stopped in the middle of an epoch


@register_backend(WHOLE_FILES)
class WholeFilesBackend(LocalBackend):
    """MMEngine's files on a disk, where a file appears under its name once all of it is written."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file. One that is there already stays as it is until the new one is whole.

        Raises:
            OSError: If it cannot be written, such as on a full disk. Nothing is left behind then.
        """
        path = Path(filepath)
        try:
            write_whole(path, obj)
        except OSError as error:
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
    room for one checkpoint more than ``max_keep_ckpts``. Each says what its weights do not show
    (:func:`~mmresattn.weights.record`).

    Arguments are those of MMEngine's ``CheckpointHook``.
    """

    def before_train(self, runner: Runner) -> None:
        """Choose how files are written and removed."""
        super().before_train(runner)
        if type(self.file_backend) is LocalBackend and self.file_client_args is None:
            self.backend_args = dict(backend=WHOLE_FILES)
        self.file_backend = _RemovesLater(self.file_backend)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Record strides, pooling and normalisation of the network."""
        checkpoint['meta'][KEY] = record(get_ori_model(runner.model))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        outdated = self.file_backend.join_path(self.out_dir, STOPPED)
        if is_main_process() and self.file_backend.isfile(outdated):
            self.file_backend.remove(outdated)
        self.file_backend.commit()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self.file_backend.commit()


@HOOKS.register_module()
class LoadWeightsHook(Hook):
    """Loads the weights of a checkpoint if they fit the model; MMEngine would load what fits and only warn.

    Args:
        fine_tune (bool): Whether weights that depend on the number of classes, and attention layers that the
            checkpoint does not have, may keep their initial values. Everything else must fit in any case. Defaults to
            False.
    """

    priority = 'VERY_HIGH'  # before an EMAHook takes what fits

    def __init__(self, fine_tune: bool = False) -> None:
        self.fine_tune = fine_tune

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names, shapes and, to resume, the state of the training.

        Raises:
            CheckpointError: If they differ, or a run shall be resumed from weights alone.
        """
        source = runner._load_from or 'The checkpoint'
        checkpoint.update(unwrap(checkpoint, source))  # other hooks look for weights under `state_dict`
        if runner._resume:
            check_resumable(runner, checkpoint, source)
        load_weights(runner.model, checkpoint, source, fine_tune=self.fine_tune)


def check_resumable(runner: Runner, checkpoint: dict, source: str) -> None:
    """Check that a checkpoint holds a state from which this training, whose optimizer is built, can go on.

    Raises:
        CheckpointError: If it lacks a part, is past the end of this training or of another optimizer.
    """
    lacking = {'meta', 'message_hub', 'optimizer'} - checkpoint.keys()
    counts = {key: (checkpoint.get('meta') or {}).get(key) for key in ('epoch', 'iter')}
    lacking |= {f'meta[{key!r}]' for key, count in counts.items() if not isinstance(count, int) or count < 0}
    if lacking:
        raise CheckpointError(
            f'{source} cannot be resumed from: it lacks {", ".join(sorted(lacking))}. To begin a training with its '
            f'weights, give it as --cfg-options load_from={source}, without --resume.'
        )
    loop = runner.train_loop
    if counts['iter'] > loop.max_iters or counts['epoch'] > loop.max_epochs:
        raise CheckpointError(
            f'{source} cannot be resumed from: it is of epoch {counts["epoch"]:,} and iteration {counts["iter"]:,}, '
            f'and this training ends after {loop.max_epochs:,} epochs and {loop.max_iters:,} iterations.'
        )
    if differing := _other_optimizer(runner.optim_wrapper.state_dict(), checkpoint['optimizer']):
        raise CheckpointError(
            f'{source} cannot be resumed from, because it was trained with another optimizer: {differing}. Resume with '
            f'the config of that training, or begin a new one with --cfg-options load_from={source}.'
        )


def _other_optimizer(own: dict, saved: dict) -> str:
    """How the state of an optimizer differs from that of a checkpoint; '' if it does not."""
    if not isinstance(saved, dict):
        return f'its state is a {type(saved).__name__}'
    if 'param_groups' not in own:  # several optimizers
        if own.keys() != saved.keys():
            return f'{", ".join(map(str, saved))} in the file, {", ".join(own)} in this config'
        return next((text for name in own if (text := _other_optimizer(own[name], saved[name]))), '')
    ours, theirs = own['param_groups'], saved.get('param_groups')
    sizes = [[len(group['params']) for group in groups or ()] for groups in (theirs, ours)]
    if sizes[0] != sizes[1]:
        return (
            f'{len(sizes[0])} groups of {sum(sizes[0])} parameters, in this config {len(sizes[1])} of {sum(sizes[1])}'
        )
    # A newer PyTorch may have more settings than the file, not fewer. Schedulers add `initial_lr`.
    unknown = sorted(theirs[0].keys() - ours[0].keys() - {'initial_lr'}) if theirs else []
    return f'it has {", ".join(unknown)}; the one of this config has {", ".join(sorted(ours[0]))}' if unknown else ''
