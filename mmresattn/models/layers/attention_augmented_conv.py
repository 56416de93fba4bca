"""Attention-augmented convolution with relative positions (Bello et al., ICCV 2019, arXiv:1904.09925)."""

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from .attention_map import AttentionMap
from .checks import check_integers


def relative_logits(queries: Tensor, table: Tensor) -> Tensor:
    """Products of queries with the embedding of how far away each key is along one axis (section 3.2.1).

    Args:
        queries (Tensor): (..., S, d), where S runs along that axis.
        table (Tensor): (2S - 1, d), one embedding for each distance from -(S - 1) to S - 1.

    Returns:
        Tensor: (..., S, S), position of the query by position of the key.
    """
    size = queries.shape[-2]
    place = torch.arange(size, device=queries.device)
    distances = table[place - place[:, None] + size - 1]  # S, S, d: key minus query
    return torch.einsum('...id,ijd->...ij', queries, distances)


@MODELS.register_module()
class AttentionAugmentedConv(nn.Module):
    """A convolution some of whose output channels are self-attention over all positions: ``[conv(x), attention(x)]``.

    Queries, keys and values come from one 1x1 convolution. The weights are the softmax over keys of
    ``q.k + q.r_w[distance in x] + q.r_h[distance in y]`` with scaled queries; the tables ``r_w`` and ``r_h`` are shared
    by the heads. They belong to maps of ``size``; at any other size they are interpolated along the distance, so that
    a distance keeps its meaning relative to the image. There is no official code; widths that are rounded down to
    multiples of the heads, and convolutions without biases, give the paper's numbers of parameters.

    The attention passes the :class:`AttentionMap` ``map``, pairwise (N, heads, Q, K) over the positions at which it
    runs. It is formed in any case: the relative logits have that shape themselves.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output F.
        kernel_size (int | tuple[int]): Of the convolution.
        stride (int | tuple[int]): Of the convolution; the input of the attention is averaged (3x3) by the same stride.
            Defaults to 1.
        padding (int | tuple[int]): Of the convolution. Defaults to 0.
        dilation (int | tuple[int]): Of the convolution. Defaults to 1.
        groups (int): Of the convolution. Defaults to 1.
        bias (bool): Of the convolution. Defaults to False.
        heads (int): Heads. Defaults to 8.
        kappa (float): Keys d_k as a share of F; at least ``min_head_keys`` a head. Defaults to 0.2.
        upsilon (float): Values d_v as a share of F, in [0, 1]: the channels that attention gives. Defaults to 0.1.
        min_head_keys (int): Smallest d_k of one head. Defaults to 20.
        size (int): Height and width of the map on which the attention runs, for which the tables are made. Defaults to
            14.
        pool (bool): Whether attention runs at half of the resolution and is interpolated back, as in the 28x28 stage
            of ResNets for ImageNet. Defaults to False.

    Raises:
        ValueError: If an argument does not fit.
    """

    place = 'conv'

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        heads: int = 8,
        kappa: float = 0.2,
        upsilon: float = 0.1,
        min_head_keys: int = 20,
        size: int = 14,
        pool: bool = False,
    ) -> None:
        super().__init__()
        check_integers(heads=heads, size=size, min_head_keys=min_head_keys)
        if not 0 <= upsilon <= 1 or kappa < 0:
            raise ValueError(f'upsilon is from 0 to 1 and kappa at least 0; got upsilon={upsilon}, kappa={kappa}.')
        self.heads = heads
        self.stride = stride
        self.pool = pool
        self.keys = max(min_head_keys, int(kappa * out_channels / heads)) * heads
        self.values = int(upsilon * out_channels / heads) * heads
        if upsilon and not self.values:
            raise ValueError(
                f'{heads} heads cannot share {upsilon} of {out_channels} channels: take fewer heads or a larger '
                'upsilon; upsilon=0 is the plain convolution.'
            )
        convolved = out_channels - self.values
        if convolved % groups:
            raise ValueError(
                f'Attention leaves {convolved} of {out_channels} channels to the convolution, which {groups} groups '
                'cannot share: take another upsilon, other heads or fewer groups.'
            )
        # Pooling by the stride gives the size that a convolution with "same" padding gives.
        pairs = zip(*map(_pair, (kernel_size, padding, dilation)))
        self.resize = pool or convolved and any(2 * p != d * (k - 1) for k, p, d in pairs)
        self.conv = None
        if convolved:
            self.conv = nn.Conv2d(in_channels, convolved, kernel_size, stride, padding, dilation, groups, bias)
        if self.values:
            self.qkv = nn.Conv2d(in_channels, 2 * self.keys + self.values, 1, bias=False)
            self.out = nn.Conv2d(self.values, self.values, 1, bias=False)
            head_keys = self.keys // heads
            self.relative_width = nn.Parameter(torch.randn(2 * size - 1, head_keys) * head_keys**-0.5)
            self.relative_height = nn.Parameter(torch.randn(2 * size - 1, head_keys) * head_keys**-0.5)
            self.map = AttentionMap('pairwise')

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, attend and join.

        Args:
            x (Tensor): Features (N, in_channels, H, W).

        Returns:
            Tensor: (N, out_channels, H / stride, W / stride).
        """
        if not self.values:
            return self.conv(x)
        strided = self._pooled(x, self.stride)
        attended = self.attention(self._pooled(strided, 2) if self.pool else strided)
        convolved = [] if self.conv is None else [self.conv(x)]
        if self.resize:
            size = (convolved or [strided])[0].shape[2:]
            attended = F.interpolate(attended, size, mode='bilinear', align_corners=False)
        return torch.cat([*convolved, attended], dim=1)

    def _pooled(self, x: Tensor, stride: int | tuple[int, int]) -> Tensor:
        if stride in (1, (1, 1)):
            return x
        return F.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False)

    def attention(self, x: Tensor) -> Tensor:
        """Multi-head self-attention of features (N, in_channels, H, W): (N, d_v, H, W)."""
        n, _, height, width = x.shape
        q, k, v = (
            part.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3)  # N, heads, H * W, d
            for part in self.qkv(x).split([self.keys, self.keys, self.values], dim=1)
        )
        q = q * q.shape[-1] ** -0.5
        grid = q.unflatten(2, (height, width))  # N, heads, H, W, d
        along_x = relative_logits(grid, self._table(self.relative_width, width))  # N, heads, H, W, W'
        along_y = relative_logits(grid.transpose(2, 3), self._table(self.relative_height, height))  # N, heads, W, H, H'
        relative = along_y.transpose(2, 3)[..., None] + along_x[..., None, :]  # N, heads, H, W, H', W'
        logits = q @ k.transpose(2, 3) + relative.flatten(4).flatten(2, 3)
        weights = self.map(logits.softmax(-1))  # N, heads, Q, K
        attended = (weights @ v).transpose(2, 3).reshape(n, self.values, height, width)
        return self.out(attended)

    def _table(self, table: Tensor, size: int) -> Tensor:
        """Embeddings (2 * size - 1, d) of the distances on a map of that size."""
        if not torch.compiler.is_exporting() and len(table) == 2 * size - 1:  # an export is for any size
            return table
        return F.interpolate(table.T[None], 2 * size - 1, mode='linear', align_corners=True)[0].T
