"""Layer-wise learning-rate decay, for classifiers, detectors and segmenters alike."""

from functools import partial

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class BackboneLayerDecayConstructor(DefaultOptimWrapperConstructor):
    """Multiplies the rate of every parameter by ``layer_decay_rate ** (number of depths - 1 - depth)``.

    Depths are those that the ``get_layer_depth`` of ``model.backbone`` gives, so that what stands outside of the
    backbone, necks and heads, trains at the full rate. MMPretrain's ``LearningRateDecayOptimWrapperConstructor`` does
    the same for its classifiers; those of MMDetection and MMSegmentation know the parameter names of a few backbones
    only.

    Everything else of ``paramwise_cfg`` is MMEngine's: ``custom_keys`` (``lr_mult`` multiplies the decayed rate),
    ``norm_decay_mult``, ``bypass_duplicate`` and so on.

    Example:
        >>> optim_wrapper = dict(
        ...     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        ...     constructor='BackboneLayerDecayConstructor',
        ...     paramwise_cfg=dict(layer_decay_rate=0.9, norm_decay_mult=0.0),
        ... )

    Arguments are those of MMEngine's ``DefaultOptimWrapperConstructor``. The optimizer needs an ``lr``, and
    ``paramwise_cfg`` a ``layer_decay_rate`` (float), from above 0 to 1.

    Raises:
        ValueError: If ``layer_decay_rate`` or ``lr`` is missing or the former out of range, and, when called, if the
            model has no backbone that knows its depths.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if rate is None or not 0 < rate <= 1:
            raise ValueError(
                f'{type(self).__name__} needs paramwise_cfg=dict(layer_decay_rate=...) above 0 and at most 1, '
                f'not {rate}. For no decay leave out the constructor.'
            )
        if self.base_lr is None:
            raise ValueError(f'{type(self).__name__} multiplies rates: give the optimizer an lr.')

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Add a group for every trained parameter, with its rate, ``lr_scale``, ``layer_id`` and ``param_name``."""
        if prefix:  # MMEngine calls this method for every module below
            super().add_params(params, module, prefix, **kwargs)
            return
        backbone = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            raise ValueError(
                f'Layer-wise learning-rate decay needs a model whose backbone has get_layer_depth; that of '
                f'{type(module).__name__} is {type(backbone).__name__}, which has none. Take another backbone, or '
                "paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}) without this constructor."
            )
        super().add_params(params, module, prefix, **kwargs)
        names = {parameter: name for name, parameter in module.named_parameters()}
        depth_of = getattr(module, 'get_layer_depth', None) or partial(backbone.get_layer_depth, prefix='backbone.')
        for group in params:
            name = names[group['params'][0]]
            depth, depths = depth_of(name)
            scale = self.paramwise_cfg['layer_decay_rate'] ** (depths - 1 - depth)
            lr = group.get('lr', self.base_lr) * scale
            group.update(lr=lr, lr_scale=scale, layer_id=depth, param_name=name)
