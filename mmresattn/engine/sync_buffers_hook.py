"""Buffers, such as the statistics of BatchNorm, that agree between processes whenever they are saved."""

from mmengine.dist import all_reduce_params
from mmengine.hooks import CheckpointHook, SyncBuffersHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class SyncSavedBuffersHook(SyncBuffersHook):
    """MMEngine's ``SyncBuffersHook``, which averages buffers over processes before validation, that also does so before
    a checkpoint is saved by iteration: else the checkpoint would hold those of the first process alone, and neither be
    the model that is then validated nor the one with which the other processes go on.
    """

    def before_train_iter(self, runner: Runner, **kwargs) -> None:
        """Buffers will change."""
        self.called_in_train = False

    def after_train_iter(self, runner: Runner, **kwargs) -> None:
        """Average the buffers if a checkpoint is due; its hook comes after this one."""
        if self.distributed and any(
            isinstance(hook, CheckpointHook)
            and not hook.by_epoch
            and (self.every_n_train_iters(runner, hook.interval, hook.save_begin) or self.is_last_train_iter(runner))
            for hook in runner.hooks
        ):
            all_reduce_params(runner.model.buffers(), op='mean')
            self.called_in_train = True
