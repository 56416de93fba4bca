"""How fast a training computes: memory format, compilation and precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from mmpretrain.utils import get_ori_model
from torch import nn


@HOOKS.register_module()
class ChannelsLastWeightsHook(Hook):
    """Keeps weights in channels-last order, in which a convolution gives its features too.

    Convolutions on CPUs run faster so: a training step of Attention-56 for CIFAR on two cores takes about 0.7 of its
    time. A wrapped model (DDP) is left alone, as its gradients have their places already.
    """

    def before_run(self, runner: Runner) -> None:
        """Convert the weights, before a checkpoint is loaded into them."""
        if not is_model_wrapper(runner.model):
            runner.model.to(memory_format=torch.channels_last)


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


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Training in bfloat16, on CPUs too, where MMEngine's ``AmpOptimWrapper`` refuses to be built.

    bfloat16 has the range of float32, so the loss is not scaled. Weights and their updates stay in float32.

    Arguments are those of MMEngine's ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass in bfloat16."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield
