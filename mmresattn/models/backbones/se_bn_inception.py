"""SE-BN-Inception: BN-Inception (Ioffe and Szegedy, 2015) with Squeeze-and-Excitation (Hu et al., CVPR 2018)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn

from ..layers import SqueezeExcitation, checkpoint
from ..layers.checks import check_images
from .stages import INIT_CFG, LayerDepth, Staged

# The official network, one row a module: widths of the branches 1x1; 1x1, 3x3; 1x1, 3x3, 3x3; and the pooling with the
# width of its 1x1 projection. A module without the 1x1 branch and the projection has stride 2 and starts a stage.
STAGES = (
    {
        '3a': (64, (64, 64), (64, 96, 96), ('avg', 32)),
        '3b': (64, (64, 96), (64, 96, 96), ('avg', 64)),
    },
    {
        '3c': (None, (128, 160), (64, 96, 96), ('max', None)),
        '4a': (224, (64, 96), (96, 128, 128), ('avg', 128)),
        '4b': (192, (96, 128), (96, 128, 128), ('avg', 128)),
        '4c': (160, (128, 160), (128, 160, 160), ('avg', 128)),
        '4d': (96, (128, 192), (160, 192, 192), ('avg', 128)),
    },
    {
        '4e': (None, (128, 192), (192, 256, 256), ('max', None)),
        '5a': (352, (192, 320), (160, 224, 224), ('avg', 128)),
        '5b': (352, (192, 320), (192, 224, 224), ('max', 128)),
    },
)
MIN_SIZE = 7  # two poolings without padding


def conv_norm_relu(in_channels: int, out_channels: int, kernel: int, stride: int, norm_cfg: dict) -> nn.Sequential:
    """Convolution without bias that keeps the size but for its stride, normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        build_norm_layer(norm_cfg, out_channels)[1],
        nn.ReLU(inplace=True),
    )


class InceptionModule(nn.Module):
    """Inception module with Squeeze-and-Excitation on its joined output.

    Args:
        in_channels (int): Channels of the input.
        row (tuple): Widths as in ``STAGES``.
        ratio (int, optional): Reduction ratio of Squeeze-and-Excitation, None for a module without. Defaults to 16.
        norm_cfg (dict): Normalisation, by MMCV's registry. Defaults to ``dict(type='BN')``.

    Attributes:
        out_channels (int): Channels of the output.
    """

    def __init__(self, in_channels: int, row: tuple, ratio: int | None = 16, norm_cfg: dict = dict(type='BN')) -> None:
        super().__init__()
        pointwise, conv3, double_conv3, (self.pooling, projection) = row
        self.stride = 2 if pointwise is None else 1

        def branch(widths: Sequence[int]) -> nn.Sequential:
            """A 1x1 convolution and 3x3 convolutions, of which the last has the stride."""
            layers, channels = nn.Sequential(), in_channels
            for i, width in enumerate(widths):
                stride = self.stride if i == len(widths) - 1 else 1
                layers.append(conv_norm_relu(channels, width, 3 if i else 1, stride, norm_cfg))
                channels = width
            return layers

        self.branch1 = None if pointwise is None else branch([pointwise])
        self.branch2 = branch(conv3)
        self.branch3 = branch(double_conv3)
        self.branch4 = nn.Identity() if projection is None else branch([projection])
        self.out_channels = (pointwise or 0) + conv3[-1] + double_conv3[-1] + (projection or in_channels)
        # Hidden widths of exactly C / ratio: MMPretrain's rounding to 8 would change all but those of 3a, 5a and 5b.
        self.se_layer = nn.Identity() if ratio is None else SqueezeExcitation(self.out_channels, None, ratio, divisor=1)

    def forward(self, x: Tensor) -> Tensor:
        branches = [] if self.branch1 is None else [self.branch1(x)]
        branches += [self.branch2(x), self.branch3(x), self.branch4(self._pool(x))]
        return self.se_layer(torch.cat(branches, 1))  # N, out_channels, H / stride, W / stride

    def _pool(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            pool = F.avg_pool2d if self.pooling == 'avg' else F.max_pool2d
            return pool(x, 3, stride=1, padding=1)
        # Padded behind alone, as Caffe does with the even sizes that the official network meets; by two, so that odd
        # sizes give as many positions as the convolutions give.
        return F.max_pool2d(F.pad(x, (0, 2, 0, 2), value=float('-inf')), 3, stride=2)


@MODELS.register_module()
class SEBNInception(LayerDepth, Staged, BaseBackbone):
    """SE-BN-Inception, the graph of the official prototxt file: 10,906,622 parameters, 2.03 G multiply-adds at 224.

    Args:
        ratio (int, optional): Reduction ratio r; the hidden width of a module of C channels is C / r. None is
            BN-Inception. Defaults to 16.
        in_channels (int): Channels of the input image. Defaults to 3.
        out_indices (int | Sequence[int]): Stages whose outputs are returned, from 0: 320, 608 and 1024 channels at
            strides 8, 16 and 32; negative ones count from the end. Nothing is built past the last of them. Defaults
            to -1.
        frozen_stages (int): Stages that are not trained: 0 freezes the stem, 1 also the first stage, and so on; -1
            freezes nothing. Defaults to -1.
        norm_eval (bool): Whether BatchNorm layers stay in evaluation mode in training. Defaults to False.
        with_cp (bool): Whether to save memory by recomputing the modules in the backward pass; BatchNorm then updates
            its running statistics twice a step. Defaults to False.
        norm_cfg (dict): Normalisation, by MMCV's registry. Defaults to ``dict(type='BN', requires_grad=True)``.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to Kaiming's ("MSRA", as in the paper) of the
            convolutions, and ones for the normalisations.

    Raises:
        ValueError: If an argument does not fit; the message says what would.
    """

    def __init__(
        self,
        ratio: int | None = 16,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        norm_cfg: dict = dict(type='BN', requires_grad=True),
        init_cfg: dict | list | None = INIT_CFG,
    ) -> None:
        super().__init__(len(STAGES), in_channels, out_indices, frozen_stages, norm_eval, init_cfg)
        if ratio is not None and ratio not in range(1, 257):  # the narrowest module gives 256 channels
            raise ValueError(f'ratio is from 1 to 256, or None for BN-Inception, not {ratio!r}.')
        self.with_cp = with_cp

        self.stem = nn.Sequential(
            conv_norm_relu(in_channels, 64, 7, 2, norm_cfg),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            conv_norm_relu(64, 64, 1, 1, norm_cfg),
            conv_norm_relu(64, 192, 3, 1, norm_cfg),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
        )
        channels = 192
        for name, rows in zip(self.stages, STAGES):
            stage = nn.Sequential()
            for place, row in rows.items():
                module = InceptionModule(channels, row, ratio, norm_cfg)
                stage.add_module(place, module)
                channels = module.out_channels
            self.add_module(name, stage)
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of an image.

        Args:
            x (Tensor): Images (N, in_channels, H, W), H and W at least 7.

        Returns:
            tuple[Tensor]: For each of ``out_indices`` the features (N, 320, H / 8, W / 8), (N, 608, H / 16, W / 16) or
            (N, 1024, H / 32, W / 32).

        Raises:
            ValueError: If the shape does not fit.
        """
        check_images(x, self.in_channels, MIN_SIZE)
        x = self.stem(x)
        outs = []
        for i, name in enumerate(self.stages):
            for module in getattr(self, name):
                x = checkpoint(module, x) if self.with_cp and x.requires_grad else module(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)
