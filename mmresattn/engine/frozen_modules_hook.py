"""Modules that a training leaves as they are."""

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.utils import get_ori_model


@HOOKS.register_module()
class FrozenModulesHook(Hook):
    """Freezes modules: their parameters get no gradients, and their normalisations use running statistics.

    Fine-tuning the last stages of a pretrained backbone takes a fraction of the time, and needs fewer photographs.

    Args:
        modules (Sequence[str]): Names of modules, or the ends of names: ``'backbone.layer1'`` also freezes
            ``classifier.backbone.layer1``.

    Raises:
        ValueError: If no module has one of the names.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self.names = tuple(modules)

    def before_train(self, runner: Runner) -> None:
        """Find the modules and switch their gradients off."""
        model = get_ori_model(runner.model)
        found = {
            name: [m for path, m in model.named_modules() if f'.{path}'.endswith(f'.{name}')] for name in self.names
        }
        if missing := [name for name, modules in found.items() if not modules]:
            raise ValueError(f'FrozenModulesHook: the model has no modules called {", ".join(missing)}.')
        self.modules = [module for modules in found.values() for module in modules]
        for module in self.modules:
            module.requires_grad_(False)

    def before_train_iter(self, runner: Runner, **kwargs) -> None:
        """Undo ``model.train()``, which the training loop calls at the start of every epoch and after validation."""
        for module in self.modules:
            module.eval()
