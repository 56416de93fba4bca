"""Stops training before a time limit and saves a checkpoint."""

import time

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.runner.loops import IterBasedTrainLoop


@HOOKS.register_module()
class TimeBudgetHook(Hook):
    """Ends a training in time, with a checkpoint from which ``--resume`` goes on.

    With :class:`ReplayHook` the parts together give the weights of one uninterrupted training. A training by epochs
    ends with the epoch in which the time is up. Of several processes the checkpoint has the running statistics of the
    first one: :class:`SyncSavedBuffersHook` averages them where it knows that a checkpoint is due.

    Args:
        minutes (float): From the making of this hook, so that compilation counts; more than 0.

    Attributes:
        stopped (bool): Whether the time was up before the training was at its end.

    Raises:
        ValueError: If ``minutes`` is not positive, or the run has no ``CheckpointHook``.
    """

    priority = 'LOWEST'  # whatever else happens after an iteration belongs to the checkpoint

    def __init__(self, minutes: float) -> None:
        if not minutes > 0:
            raise ValueError(f'TimeBudgetHook: minutes must be more than 0, not {minutes}.')
        self.end = time.monotonic() + 60 * minutes
        self.stopped = False

    def before_run(self, runner: Runner) -> None:
        """Check that there is a hook that can save."""
        if not any(isinstance(hook, CheckpointHook) for hook in runner.hooks):
            raise ValueError(
                'TimeBudgetHook saves by a CheckpointHook, and this run has none. Set default_hooks.checkpoint.'
            )

    def after_train_iter(self, runner: Runner, **kwargs) -> None:
        """Stop a training by iterations."""
        if isinstance(runner.train_loop, IterBasedTrainLoop) and not self.is_last_train_iter(runner):
            self._stop_in_time(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop a training by epochs."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop) and not self.is_last_train_epoch(runner):
            self._stop_in_time(runner)

    def _stop_in_time(self, runner: Runner) -> None:
        late = torch.tensor(int(time.monotonic() > self.end))
        if runner.distributed:  # all of them, or none
            late = late.to(runner.model.device)
            all_reduce(late)
        if not late:
            return
        self.stopped = runner.train_loop.stop_training = True
        hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
        saved = hook.every_n_epochs if hook.by_epoch else hook.every_n_train_iters
        if not saved(runner, hook.interval):  # else that hook just did
            hook._save_checkpoint(runner)
        runner.logger.info('The time is up; --resume goes on from here.')
