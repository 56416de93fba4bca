"""A compiled backbone in a training."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.utils import get_ori_model


@HOOKS.register_module()
class CompileBackboneHook(Hook):
    """Compiles the backbone where it is, so that the names of weights stay as they are.

    MMEngine's own ``compile`` option compiles ``train_step``, whose logs and data samples break the graph.

    Args:
        **options: Of :func:`torch.compile`, such as ``mode='reduce-overhead'`` (CUDA graphs).
    """

    def __init__(self, **options) -> None:
        self.options = options

    def before_run(self, runner: Runner) -> None:
        """Compile; it happens at the first images."""
        model = get_ori_model(runner.model)
        model.backbone.compile(**self.options)
