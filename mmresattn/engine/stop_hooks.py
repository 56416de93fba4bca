"""Trainings that stop before their end, at a signal or a time limit, with a checkpoint to resume from."""

import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import torch
from mmengine.dist import all_reduce, barrier, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.loops import IterBasedTrainLoop, _InfiniteDataloaderIterator
from torch import distributed

from .checkpoint_hooks import STOPPED
from .sync_buffers_hook import SyncSavedBuffersHook

SIGNALS = [getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1') if hasattr(signal, name)]


class TrainingStopped(SystemExit):
    """Raised after a training has stopped early and saved a checkpoint; ends the process with status 75.

    75 is ``EX_TEMPFAIL`` of ``sysexits.h``: the same command should be tried again, here with ``--resume``.

    Attributes:
        iteration (int): Number of iterations done.
    """

    def __init__(self, iteration: int) -> None:
        super().__init__(75)
        self.iteration = iteration


class StopHook(Hook):
    """Base of hooks that stop a training after an iteration.

    If any process has a reason to stop, all of them finish the iteration, the main process saves a checkpoint, and all
    raise :class:`TrainingStopped`. A checkpoint in the middle of an epoch is ``stopped.pth``; the next regular one
    replaces it. A training by iterations first runs a validation that is due. The last iteration is never stopped
    after, and neither is one of several that accumulate a gradient, because a checkpoint does not hold it. With
    :class:`ReplayHook` the resumed run ends with weights bit-identical to those of an uninterrupted one.
    """

    priority = 'LOWEST'  # after everything that belongs to the iteration, regular checkpoints included

    def reason(self) -> str:
        """Why this process wants to stop; '' if it does not."""
        raise NotImplementedError

    def before_train(self, runner: Runner) -> None:
        """Open a connection between the CPUs of all processes, so that asking them does not wait for a GPU."""
        self.stopped = False
        self.group = distributed.new_group(backend='gloo') if runner.distributed else None

    def after_train_iter(self, runner: Runner, **kwargs) -> None:
        """Stop if any process has a reason to.

        Raises:
            TrainingStopped: In a training by epochs.
        """
        accumulated = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if (runner.iter + 1) % accumulated or self.is_last_train_iter(runner):
            return
        reason = self.reason()
        stop = torch.tensor(int(bool(reason)))
        all_reduce(stop, 'max', self.group)
        if not stop:
            return
        save_now(runner)
        barrier(self.group)
        self.stopped = True
        runner.logger.warning(
            f'Stopped after iteration {runner.iter + 1}: {reason or "another process was told to"}. '
            'The checkpoint is saved; continue with --resume. Exit status: 75.'
        )
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            raise TrainingStopped(runner.iter + 1)
        runner.train_loop.stop_training = True

    def after_train(self, runner: Runner) -> None:
        """End a training by iterations.

        Raises:
            TrainingStopped: If it was stopped.
        """
        if self.stopped:
            raise TrainingStopped(runner.iter)


@HOOKS.register_module()
class StopOnSignalHook(StopHook):
    """Stops a training at SIGTERM or SIGUSR1, which schedulers send before they kill: see :class:`StopHook`.

    A signal during a validation takes effect after it and one more iteration. Workers of dataloaders survive the
    signal too, as schedulers send it to all processes of a job. Once stopped, the process ignores further signals of
    this kind: it is about to end.
    """

    received = None

    def reason(self) -> str:
        """The signal received."""
        return f'received {signal.Signals(self.received).name}' if self.received else ''

    def before_run(self, runner: Runner) -> None:
        """Let the workers of dataloaders survive the signal: before a resumed run chooses where its data begin."""
        if not isinstance(runner._train_loop, BaseLoop) or not self._can_listen(runner):
            return  # the property `train_loop` would build one for a test
        for loop in (runner.train_loop, runner.val_loop):
            loader = getattr(loop, 'dataloader', None)
            if getattr(loader, 'num_workers', 0):
                loader.worker_init_fn = partial(_init_worker, loader.worker_init_fn)
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop) and loop.dataloader.num_workers:
            loop.dataloader._iterator = None  # its workers were started with the loop: start them again
            loop.dataloader_iterator = _InfiniteDataloaderIterator(loop.dataloader)

    def before_train(self, runner: Runner) -> None:
        """Listen."""
        super().before_train(runner)
        self.before = {}
        if self._can_listen(runner):
            self.before = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def _can_listen(self, runner: Runner) -> bool:
        """Whether this is the main thread, where Python allows it, of a run that can save."""
        return threading.current_thread() is threading.main_thread() and _saves(runner)

    def _receive(self, number: int, frame) -> None:
        self.received = number

    def after_train(self, runner: Runner) -> None:
        """Listen no more."""
        super().after_train(runner)
        for number, handler in self.before.items():
            signal.signal(number, handler)


@HOOKS.register_module()
class TimeBudgetHook(StopHook):
    """Stops a training when its time is up: see :class:`StopHook`.

    Args:
        minutes (float): From the making of this hook, so that compilation counts; more than 0.

    Raises:
        ValueError: If ``minutes`` is not positive, or the run has no ``CheckpointHook``.
    """

    def __init__(self, minutes: float) -> None:
        if not minutes > 0:
            raise ValueError(f'TimeBudgetHook: minutes must be more than 0, not {minutes}.')
        self.end = time.monotonic() + 60 * minutes

    def before_run(self, runner: Runner) -> None:
        """Check that there is a hook that can save."""
        if not _saves(runner):
            raise ValueError(
                'TimeBudgetHook saves by a CheckpointHook, and this run has none. Set default_hooks.checkpoint.'
            )

    def reason(self) -> str:
        """Whether the time is up."""
        return 'the time is up' if time.monotonic() > self.end else ''


def _saves(runner: Runner) -> bool:
    return any(isinstance(hook, CheckpointHook) for hook in runner.hooks)


def save_now(runner: Runner) -> None:
    """Save a checkpoint in a hook's ``after_train_iter``, unless the checkpoint hook has just done so."""
    for hook in runner.hooks:
        if isinstance(hook, SyncSavedBuffersHook):
            hook.average(runner)
    hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    if not hook.by_epoch:
        if not hook.every_n_train_iters(runner, hook.interval, hook.save_begin):
            hook._save_checkpoint(runner)
        return
    runner.save_checkpoint(
        hook.out_dir,
        STOPPED,
        hook.file_client_args,
        save_optimizer=hook.save_optimizer,
        save_param_scheduler=hook.save_param_scheduler,
        by_epoch=False,
        backend_args=hook.backend_args,
        **hook.args,
    )
    if is_main_process():
        Path(runner.work_dir, 'last_checkpoint').write_text(hook.file_backend.join_path(hook.out_dir, STOPPED))


def _init_worker(init_fn, worker: int) -> None:
    """Let a worker obey its main process alone: a scheduler signals both, and the main process still needs batches."""
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        parent = multiprocessing.parent_process().pid
        threading.Thread(target=_wait_for_signal_of, args=(parent,), daemon=True).start()
    if init_fn is not None:
        init_fn(worker)


def _wait_for_signal_of(parent: int) -> None:
    while signal.sigwaitinfo(SIGNALS).si_pid != parent:
        pass
    os._exit(0)
