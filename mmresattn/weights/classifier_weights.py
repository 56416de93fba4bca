"""A backbone that starts from a trained classifier, all of it or not at all."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule, update_init_info
from mmengine.registry import MODELS, WEIGHT_INITIALIZERS
from torch import nn

from ..utils import nested_dicts, type_name
from .addresses import existing
from .fitting import compare_weights, load_weights
from .loader import read_checkpoint
from .packages import SCHEME, package_file

HOW = (
    'Give the checkpoint of a trained classifier: --cfg-options model.backbone.init_cfg.checkpoint=PATH; or one of the '
    'whole model: --cfg-options load_from=PATH.'
)
CHECKED = ('ClassifierWeights', 'PretrainedTrunk')  # initialisers with a method `check`


@WEIGHT_INITIALIZERS.register_module()
class ClassifierWeights:
    """Weights of a trained classifier for the same backbone in another model.

    Every parameter and buffer of the backbone must be in the checkpoint with its shape, but for the children in
    ``new``; and where the backbone has a child, the checkpoint must have nothing more in it. Children that the backbone
    was not built with (stages past the last output) stay out. MMEngine's ``Pretrained`` would load what fits, warn and
    leave the rest random.

    Args:
        checkpoint (str, optional): Path or address, as for :func:`~mmresattn.weights.read_checkpoint`. After a training
            with an ``EMAHook`` it holds the averaged weights. None, for configs whose weights must be trained first,
            is refused when weights are wanted. Defaults to None.
        prefix (str): Name of the backbone in the checkpoint. Defaults to ``'backbone.'``.
        new (Sequence[str]): Children of the backbone that a classifier does not have, such as the normalisations that
            ``norm_outputs`` gives to earlier outputs: ``('norm1', 'norm2', 'norm3')``. Those that are not in the
            checkpoint stay as they are. Defaults to none.
    """

    def __init__(self, checkpoint: str | None = None, prefix: str = 'backbone.', new: Sequence[str] = ()) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.new = tuple(new)

    def __call__(self, module: nn.Module) -> None:
        """Load the weights. The module's own parts will not initialise themselves afterwards.

        Raises:
            CheckpointError: If the checkpoint is one of another network.
            FileNotFoundError: If there is none.
            ValueError: If none is given, or if the backbone would overwrite part of the weights.
        """
        load_weights(module, **self._weights(module))
        for part in module.modules():
            if isinstance(part, BaseModule):
                part.is_init = True
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'ClassifierWeights: {self.checkpoint}')

    def check(self, module: nn.Module) -> None:
        """Raise what loading would raise, for a backbone that may be on the meta device."""
        compare_weights(module, **self._weights(module))

    def _weights(self, module: nn.Module) -> dict:
        """Arguments of :func:`load_weights`."""
        name = type(module).__name__
        if self.checkpoint is None:
            raise ValueError(
                f'{name} starts from the weights of a classifier (init_cfg: ClassifierWeights), but no checkpoint '
                f'is given. {HOW}'
            )
        try:
            existing(self.checkpoint)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{name} starts from {self.checkpoint}, which does not exist. {HOW}') from error
        if getattr(module, 'zero_init_residual', False):  # after any initialiser but one named "Pretrained"
            raise ValueError(f'{name} sets weights to zero after it was initialised: give it zero_init_residual=False.')
        how = f'{HOW} If parts of it are in no classifier, name them: init_cfg=dict(..., new=[...]).'
        checkpoint = read_checkpoint(self.checkpoint)
        return dict(checkpoint=checkpoint, source=self.checkpoint, prefix=self.prefix, new=self.new, how=how)


def _initialized(model: dict) -> list[tuple[dict, dict]]:
    """Every part of a model's config whose start can be checked before it is built, with that init_cfg."""
    found = []
    for part in nested_dicts(model):
        init = part.get('init_cfg')
        for entry in init if isinstance(init, list | tuple) else [init]:
            if isinstance(entry, dict) and type_name(entry) in CHECKED:
                found.append((part, entry))
    return found


def check_classifier_weights(model: dict) -> None:
    """Raise now what ``ClassifierWeights`` or ``PretrainedTrunk`` would raise after data sets and models were built.

    Args:
        model (dict): Config of a model. Of its parts, those with such an ``init_cfg`` are built on the meta device, in
            the default scope.

    Raises:
        CheckpointError, FileNotFoundError, ValueError: See ``check`` of each.
    """
    for part, init in _initialized(model):
        if str(init.get('checkpoint')).startswith(SCHEME):  # named before a library is missed that comes with it
            package_file(init['checkpoint'].removeprefix(SCHEME))
        with torch.device('meta'):
            backbone = MODELS.build(part)
        WEIGHT_INITIALIZERS.build(init).check(backbone)


def drop_classifier_weights(model: dict) -> None:
    """Take ``ClassifierWeights`` and ``PretrainedTrunk`` out of the config of a model that is loaded as a whole.

    Args:
        model (dict): Config of a model; changed in place.
    """
    for part, _ in _initialized(model):
        part['init_cfg'] = None
