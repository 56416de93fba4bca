"""Non-local block (Wang et al., CVPR 2018, arXiv:1711.07971)."""

from collections import OrderedDict

import torch.nn.functional as F
from mmcv.cnn import NonLocal2d, build_conv_layer
from mmengine.model import constant_init, normal_init
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from .attention_map import AttentionMap
from .checks import check_integers

MODES = ('gaussian', 'embedded_gaussian', 'dot_product', 'concatenation')


@MODELS.register_module()
class NonLocalAttention(NonLocal2d):
    """MMCV's NonLocal2d, whose pairwise weights pass an :class:`AttentionMap`: ``x_i + W_z sum_j weight_ij g(x_j)``.

    | mode                  | weight of position j for i (paper, section 3.2) | scale                     |
    | --------------------- | ----------------------------------------------- | ------------------------- |
    | ``gaussian``          | softmax over j of ``x_i . x_j``                 | none                      |
    | ``embedded_gaussian`` | softmax over j of ``theta(x_i) . phi(x_j)``     | ``use_scale``: (C/2)^-0.5 |
    | ``dot_product``       | ``theta(x_i) . phi(x_j)``                       | 1 / positions j           |
    | ``concatenation``     | ``ReLU(w . [theta(x_i), phi(x_j)])``            | 1 / positions j           |

    Constructor, parameter names and initialisation are MMCV's, so its checkpoints load; weights with and without
    ``pool_first`` have the same names. The block of the authors' code is ``norm_cfg=dict(type='BN'),
    sub_sample=True, pool_first=True, out_bias=True``. The scale of the embedded Gaussian is in that code but not in
    the paper.

    The two softmax modes run through ``scaled_dot_product_attention`` and form the weights only while they are
    watched. At initialisation the block is the identity.

    Args:
        in_channels (int): Channels C of input and output.
        sub_sample (bool): Whether 2x2 max pooling leaves a quarter of the positions j. Defaults to False.
        pool_first (bool): Whether that pooling comes before the convolutions phi and g (the authors' code) instead of
            after them (the paper's wording, MMCV). Defaults to False.
        out_bias (bool): Whether W_z has a bias also before a normalisation, as in the authors' code, and weights from
            N(0, 0.01^2). Defaults to False.
        **kwargs: ``reduction``, ``use_scale``, ``conv_cfg``, ``norm_cfg`` and ``mode`` of MMCV's NonLocal2d.

    Raises:
        ValueError: If ``mode`` is none of these, or ``reduction`` no positive integer.
    """

    place = 'after'

    def __init__(
        self, in_channels: int, sub_sample: bool = False, *, pool_first: bool = False, out_bias: bool = False, **kwargs
    ) -> None:
        if kwargs.get('mode', MODES[1]) not in MODES:
            raise ValueError(f'mode is one of {MODES}, not {kwargs["mode"]!r}.')
        check_integers(in_channels=in_channels, reduction=kwargs.get('reduction', 2))
        self.out_bias = out_bias  # the constructor of MMCV calls init_weights
        super().__init__(in_channels, sub_sample, **kwargs)
        if sub_sample and pool_first:
            for name in ('g',) if self.mode == 'gaussian' else ('g', 'phi'):
                conv, pool = getattr(self, name)
                setattr(self, name, nn.Sequential(OrderedDict([('1', pool), ('0', conv)])))
        if out_bias and self.conv_out.norm is not None:  # without a normalisation it has one
            self.conv_out.conv = build_conv_layer(self.conv_out.conv_cfg, self.inter_channels, in_channels, 1)
            normal_init(self.conv_out.conv, std=0.01)
        self.map = AttentionMap('pairwise')

    def init_weights(self, std: float = 0.01, zeros_init: bool = True) -> None:
        """MMCV's initialisation, which fails when it is called again on a block with ``sub_sample``."""
        for name in ('g', 'theta', 'phi'):
            for conv in getattr(self, name, nn.Identity()).modules():
                if isinstance(conv, _ConvNd):
                    normal_init(conv, std=std)
        if self.out_bias:
            normal_init(self.conv_out.conv, std=std)
        last = self.conv_out.conv if self.conv_out.norm is None else self.conv_out.norm
        if zeros_init:
            constant_init(last, 0)
        else:
            normal_init(last, std=std)

    def concatenation(self, theta_x: Tensor, phi_x: Tensor) -> Tensor:
        """``ReLU(w . [theta, phi]) / K`` of (N, Q, C') and (N, C', K), as in the other modes.

        The two halves of w are applied before the sum, so there is no tensor of 2 C' Q K values as in MMCV.
        """
        w_theta, w_phi = self.concat_project.conv.weight.view(2, 1, -1)  # 1, C' each
        scores = theta_x @ w_theta.T + w_phi @ phi_x  # (N, Q, 1) + (N, 1, K)
        return scores.relu() / scores.shape[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Add to every position a weighted sum over all positions.

        Args:
            x (Tensor): Features (N, C, H, W), at least 2x2 with ``sub_sample``.

        Returns:
            Tensor: (N, C, H, W). The map is (N, 1, Q, K) with Q = H W and K = Q, or (H // 2) (W // 2) with
            ``sub_sample``, both row by row.

        Raises:
            ValueError: If the features are too small.
        """
        if self.sub_sample and min(x.shape[2:]) < 2:
            raise ValueError(
                f'Features of {x.shape[2]}x{x.shape[3]} are too small: with sub_sample this block needs at least 2x2. '
                'Use larger images, or sub_sample=False.'
            )
        if self.mode == 'gaussian':
            theta, phi = x, self.phi(x) if self.sub_sample else x
        else:
            theta, phi = self.theta(x), self.phi(x)
        theta, phi, g = (t.flatten(2).transpose(1, 2) for t in (theta, phi, self.g(x)))  # N, Q or K, channels
        if not self.map.watched and self.mode in ('gaussian', 'embedded_gaussian'):
            scaled = self.mode == 'embedded_gaussian' and self.use_scale
            # The fused kernels want a head, and channels side by side in memory.
            theta, phi, g = (t[:, None].contiguous() for t in (theta, phi, g))
            scale = self.inter_channels**-0.5 if scaled else 1.0
            y = F.scaled_dot_product_attention(theta, phi, g, scale=scale)[:, 0]
        else:
            weight = getattr(self, self.mode)(theta, phi.transpose(1, 2))  # N, Q, K
            y = self.map(weight[:, None])[:, 0] @ g
        y = y.transpose(1, 2).unflatten(2, x.shape[2:])  # N, C / 2, H, W
        return x + self.conv_out(y)
