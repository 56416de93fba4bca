"""A backbone that starts from a trained classifier, all of it or not at all."""

import os.path as osp
from collections.abc import Iterator, Sequence

import torch
from mmengine.model import BaseModule, update_init_info
from mmengine.registry import MODELS, WEIGHT_INITIALIZERS
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

HOW = (
    'Give the checkpoint of a trained classifier: --cfg-options model.backbone.init_cfg.checkpoint=PATH; or one of the '
    'whole model: --cfg-options load_from=PATH.'
)


@WEIGHT_INITIALIZERS.register_module()
class ClassifierWeights:
    """Weights of a trained classifier for the same backbone in another model.

    MMEngine's ``Pretrained`` loads what fits and goes on with the rest as it is. A detector or segmenter whose frozen
    or normalising layers stay random learns little, and says so after days; this one refuses.

    Every parameter and buffer of the backbone must be in the checkpoint with its shape, but for the children in
    ``new``; and where the backbone has a child, the checkpoint must have nothing more in it. Children that the backbone
    was not built with (stages past the last output) stay out.

    Args:
        checkpoint (str, optional): Path or address, ``.pth`` or ``.safetensors``, as MMEngine saves them (weights under
            ``state_dict``, which are the averaged ones if an ``EMAHook`` ran) or the weights alone. None, for configs
            of nets whose weights nobody has published, is refused as soon as weights are wanted. Defaults to None.
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
        """Load the weights. The module's own parts will not initialise themselves afterwards."""
        module.load_state_dict(self.weights(module), strict=False)
        for part in module.modules():
            if isinstance(part, BaseModule):
                part.is_init = True
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'ClassifierWeights: {self.checkpoint}')

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """The weights for a backbone, once they are known to be all there.

        Args:
            module (nn.Module): The backbone; may lie on the meta device.

        Returns:
            Dict[str, Tensor]: Weights by the names that they have in the backbone.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            RuntimeError: If it is one of another net.
            ValueError: If no checkpoint is given, or if the backbone would overwrite part of the weights.
        """
        name = type(module).__name__
        if self.checkpoint is None:
            raise ValueError(
                f'{name} starts from the weights of a classifier (init_cfg: ClassifierWeights), but no checkpoint '
                f'is given. {HOW}'
            )
        if '://' not in self.checkpoint and not osp.isfile(osp.expanduser(self.checkpoint)):
            raise FileNotFoundError(f'{name} starts from {self.checkpoint}, which does not exist. {HOW}')
        if getattr(module, 'zero_init_residual', False):  # after any initialiser but one named "Pretrained"
            raise ValueError(f'{name} sets weights to zero after it was initialised: give it zero_init_residual=False.')
        content = CheckpointLoader.load_checkpoint(self.checkpoint, map_location='cpu')
        saved = {
            key.removeprefix('module.').removeprefix(self.prefix): value
            for key, value in content.get('state_dict', content).items()
            if key.removeprefix('module.').startswith(self.prefix)
        }
        own = module.state_dict()
        children = {key.split('.')[0] for key in own}
        problems = {
            'not in the file': [key for key in own if key not in saved and key.split('.')[0] not in self.new],
            'of another shape': [
                f'{key} {tuple(saved[key].shape)} for {tuple(own[key].shape)}'
                for key in own
                if key in saved and saved[key].shape != own[key].shape
            ],
            'not in the backbone': [key for key in saved if key not in own and key.split('.')[0] in children],
        }
        if any(problems.values()):
            found = '; '.join(
                f'{len(keys)} {problem} ({", ".join(keys[:3])}{", ..." if len(keys) > 3 else ""})'
                for problem, keys in problems.items()
                if keys
            )
            raise RuntimeError(
                f'{self.checkpoint} has {len(saved)} weights under {self.prefix!r}, which are not those of this {name} '
                f'with {len(own)}: {found}. {HOW} If parts of it are in no classifier, name them: '
                'init_cfg=dict(..., new=[...]).'
            )
        return {key: value for key, value in saved.items() if key in own}


def _initialized(cfg: dict | Sequence) -> Iterator[tuple[dict, dict]]:
    """Every part of a model's config that starts from ``ClassifierWeights``, with that init_cfg."""
    if isinstance(cfg, dict):
        init = cfg.get('init_cfg')
        for one in init if isinstance(init, (list, tuple)) else [init]:
            kind = one.get('type') if isinstance(one, dict) else None
            if kind is ClassifierWeights or isinstance(kind, str) and kind.split('.')[-1] == 'ClassifierWeights':
                yield cfg, one
    if isinstance(cfg, (dict, list, tuple)):
        for part in cfg.values() if isinstance(cfg, dict) else cfg:
            yield from _initialized(part)


def check_classifier_weights(model: dict) -> None:
    """Raise now what :class:`ClassifierWeights` would raise after data sets and models were built.

    Args:
        model (dict): Config of a model. Of its parts, those with such an ``init_cfg`` are built on the meta device, in
            the default scope.

    Raises:
        FileNotFoundError, RuntimeError, ValueError: See :meth:`ClassifierWeights.weights`.
    """
    for part, init in _initialized(model):
        with torch.device('meta'):
            backbone = MODELS.build(part)
        WEIGHT_INITIALIZERS.build(init).weights(backbone)


def drop_classifier_weights(model: dict) -> None:
    """Take :class:`ClassifierWeights` out of a model's config, for a model that is loaded as a whole.

    Args:
        model (dict): Config of a model; changed in place.
    """
    for part, _ in list(_initialized(model)):
        part['init_cfg'] = None
