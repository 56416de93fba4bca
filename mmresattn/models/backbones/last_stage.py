"""A backbone that is cut before its last stage. How backbones offer that stage is said here alone."""

import torch
from mmengine.model import BaseModule
from mmpretrain.models.backbones import ResNet
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ...compat.meta_device import LinspaceOnCPU
from ..layers.checks import name_single_values


def _build(backbone: dict) -> nn.Module:
    # A plain name is MMPretrain's, whatever package's model was built last in this process.
    return MODELS.build({'_scope_': 'mmpretrain', **backbone})


def _on_meta(backbone: dict) -> nn.Module:
    """The backbone without memory for its weights, to look at."""
    with torch.device('meta'), LinspaceOnCPU():
        model = _build(backbone)
    model.eval()
    return model


def without_last_stage(backbone: dict) -> dict:
    """Config of the same backbone up to its stage before last.

    MMPretrain's ResNet and its relatives are told how many stages to build; backbones of this package build nothing
    past the last of their ``out_indices``.

    Args:
        backbone (dict): Config of a backbone that ends with its last stage.

    Returns:
        dict: Config of a backbone that gives a tuple of one tensor, the input of that stage.

    Raises:
        ValueError: If there is a single stage, or ``frozen_stages`` goes past the cut.
    """
    return _without_last_stage(backbone, _on_meta(backbone))


def _without_last_stage(backbone: dict, whole: nn.Module) -> dict:
    n = (whole.num_stages if isinstance(whole, ResNet) else len(getattr(whole, 'stages', ()))) - 1
    if n == 0:
        raise ValueError(f'This {type(whole).__name__} has a single stage, so it cannot be cut before its last one.')
    if 0 < n < backbone.get('frozen_stages', -1):
        raise ValueError(
            f'frozen_stages={backbone["frozen_stages"]} of the {type(whole).__name__} goes past the feature extractor, '
            f'which has {n} stages: the last one is trained. Use at most frozen_stages={n}.'
        )
    if not isinstance(whole, ResNet):
        return {**backbone, 'out_indices': [-2]}
    strides, dilations = tuple(whole.strides[:n]), tuple(whole.dilations[:n])
    return {**backbone, 'num_stages': n, 'strides': strides, 'dilations': dilations, 'out_indices': (n - 1,)}


class LastStage(BaseModule):
    """The last stage of a backbone, under the names that its modules have there.

    It is what the backbone has and the same one without its last stage has not: the stage itself and, in
    pre-activation networks, the normalisation and ReLU that close the network. It starts as the backbone starts it, by
    the backbone's own ``init_cfg``: with ``dict(type='Pretrained', ...)`` from a checkpoint of the whole backbone.
    ``frozen_stages`` and ``norm_eval`` of the config are for the backbone alone.

    Args:
        backbone (dict): Config of a backbone that ends with its last stage.
        copy (bool): Whether this is the copy for an attention branch: stride 1, and no closing normalisation, whose
            place the branch's own takes. Defaults to False.

    Attributes:
        out_channels (int): Channels of its output.

    Raises:
        ValueError: If the backbone does not keep its stages under names of their own, has a single one, or freezes
            the last.
    """

    def __init__(self, backbone: dict, copy: bool = False) -> None:
        super().__init__()
        whole = _on_meta(backbone)
        cut = _on_meta(_without_last_stage(backbone, whole))
        names = [name for name, _ in whole.named_children() if name not in dict(cut.named_children())]
        rest = {key for key in whole.state_dict() if key.split('.')[0] not in names}
        if not names or rest != set(cut.state_dict()):
            raise ValueError(
                f'{type(whole).__name__} cannot be cut before its last stage: that is possible with ResNet and its '
                'relatives of MMPretrain, and with backbones that keep each stage under a name of its own and build '
                'none past the last of their out_indices, as those of mmresattn.'
            )
        if copy and hasattr(whole, 'strides'):  # a dense block has none
            backbone = {**backbone, 'strides': (*whole.strides[:-1], 1)}
        self.backbone = backbone
        side = max(64, getattr(whole, 'min_size', 1))
        images = torch.empty(1, backbone.get('in_channels', 3), side, side, device='meta')
        self.out_channels = whole(images)[-1].shape[1]
        built = _build(backbone)
        for name in names[:1] if copy else names:
            self.add_module(name, getattr(built, name))

    @name_single_values
    def forward(self, x: Tensor) -> Tensor:
        """Output of the stage.

        Args:
            x (Tensor): Output of the stage before last (N, C, H, W).

        Returns:
            Tensor: (N, out_channels, H / stride, W / stride).
        """
        for module in self.children():
            x = module(x)
        return x

    def init_weights(self) -> None:
        """Take the weights of a freshly initialised backbone."""
        whole = _build(self.backbone)
        whole.init_weights()
        self.load_state_dict(whole.state_dict(), strict=False)
        self._is_init = True
