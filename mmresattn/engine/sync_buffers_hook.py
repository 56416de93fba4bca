"""Buffers, such as the statistics of BatchNorm, that agree between processes whenever they are saved."""

from mmengine.dist import all_reduce_params
from mmengine.hooks import CheckpointHook, EMAHook, SyncBuffersHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class SyncSavedBuffersHook(SyncBuffersHook):
    """MMEngine's ``SyncBuffersHook``, which averages buffers over processes before validation, that also does so before
    a checkpoint is saved by iteration: else the checkpoint would hold those of the first process alone, and neither be
    the model that is then validated nor the one with which the other processes go on. It does the same for the averaged
    model of an ``EMAHook``, which is the one that is validated and saved.
    """

    def before_train_iter(self, runner: Runner, **kwargs) -> None:
        """Buffers will change."""
        self.called_in_train = False

    def after_train_iter(self, runner: Runner, **kwargs) -> None:
        """Average the buffers if a checkpoint is due; its hook comes after this one."""
        if any(
            isinstance(hook, CheckpointHook)
            and not hook.by_epoch
            and (self.every_n_train_iters(runner, hook.interval, hook.save_begin) or self.is_last_train_iter(runner))
            for hook in runner.hooks
        ):
            self.average(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Average the buffers."""
        self.average(runner)

    before_val_epoch = after_train_epoch

    def average(self, runner: Runner) -> None:
        """Average the buffers over processes, unless that was done since the last iteration."""
        if not self.distributed or self.called_in_train:
            return
        averaged = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
        for model in (runner.model, *averaged):
            all_reduce_params(model.buffers(), op='mean')
        self.called_in_train = True
