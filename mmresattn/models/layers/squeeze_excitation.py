"""Squeeze-and-Excitation (Hu et al., CVPR 2018, arXiv:1709.01507)."""

from mmengine.registry import MODELS
from mmpretrain.models.utils import SELayer
from torch import Tensor

from .attention_map import AttentionMap
from .checks import check_integers


@MODELS.register_module()
class SqueezeExcitation(SELayer):
    """MMPretrain's SELayer with an :class:`AttentionMap`: ``s = sigmoid(W2 relu(W1 mean(x)))``, output ``s * x``.

    Constructor, parameter names and initialisation are MMPretrain's, so its checkpoints load. What differs from the
    paper: the hidden width is rounded to a multiple of ``divisor=8``; ``divisor=1`` gives exactly C / r. For ResNets
    both agree at every ratio of the paper; for SE-BN-Inception they do not.

    In a residual network it sits on the residual branch, before the sum; in an Inception network on the joined output
    of a module (paper, figures 2 and 3).

    Args:
        channels (int): Channels C of input and output.
        squeeze_channels (int, optional): Hidden width. Defaults to C / ``ratio``, rounded to ``divisor``.
        ratio (int): Reduction ratio r. Defaults to 16.
        divisor (int): What the hidden width is a multiple of. Defaults to 8.
        **kwargs: ``bias``, ``conv_cfg``, ``act_cfg``, ``return_weight`` and ``init_cfg`` of MMPretrain's SELayer.

    Raises:
        ValueError: If there are no such widths.
    """

    place = 'branch'
    _abbr_ = 'se_layer'  # its name in a block of MMPretrain's SEResNet

    def __init__(
        self, channels: int, squeeze_channels: int | None = None, ratio: int = 16, divisor: int = 8, **kwargs
    ) -> None:
        check_integers(channels=channels, ratio=ratio, divisor=divisor)
        if squeeze_channels is not None:
            check_integers(squeeze_channels=squeeze_channels)
        elif divisor == 1 and ratio > channels:
            raise ValueError(f'ratio={ratio} leaves nothing of {channels} channels: it is at most their number.')
        super().__init__(channels, squeeze_channels, ratio, divisor, **kwargs)
        self.map = AttentionMap('channel')

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel.

        Args:
            x (Tensor): Features (N, C, H, W).

        Returns:
            Tensor: (N, C, H, W); the weights (N, C, 1, 1) in (0, 1) instead with ``return_weight``.
        """
        squeezed = self.global_avgpool(x)  # N, C, 1, 1
        weight = self.map(self.conv2(self.conv1(squeezed)))  # N, C, 1, 1
        return weight if self.return_weight else x * weight
