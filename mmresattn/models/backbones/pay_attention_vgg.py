"""The networks of Learn To Pay Attention (Jetley et al., ICLR 2018, arXiv:1804.02391), up to the global vector."""

from collections.abc import Sequence

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..layers import AttentionMap, PreActBottleneck, norm_relu
from ..layers.checks import architecture_fields, check_images, check_integers, stage_indices

Layer = int | float | tuple
# One row a network. A layer is the channels of a 3x3 convolution with normalisation and ReLU, the rate of a dropout
# (a float), or a kind and its numbers: ('max', 2) pools by 2 and ('to', 32) to 32x32 from any size, ('stem', 16) is a
# bare 3x3 convolution, ('unit', 64) a pre-activation bottleneck, of stride 2 as ('unit', 64, 2), and ('norm',) a
# normalisation and ReLU.
VGG_ATT = dict(
    stages=(  # the poolings of plain VGG after the 2nd and the 4th convolution are gone: 32x32, 16x16 and 8x8 at 32
        [64, 0.3, 64, 128, 0.4, 128, 256, 0.4, 256, 0.4, 256],
        [('max', 2), 512, 0.4, 512, 0.4, 512],
        [('max', 2), 512, 0.4, 512, 0.4, 512],
    ),
    tail=[('max', 2), 512, 0.4, ('max', 2), 512, 0.4],  # between the last stage and the pooling that leaves 1x1
    global_channels=512,  # None: there is no global vector
    gates=None,  # or one entry per stage: None, or the layers of the global vector that gates its output
)
ARCHITECTURES = {
    'vgg-att': VGG_ATT,
    'vgg': dict(
        VGG_ATT,
        stages=(
            [64, 0.3, 64],
            [('max', 2), 128, 0.4, 128],
            [('max', 2), 256, 0.4, 256, 0.4, 256],
            [('max', 2), 512, 0.4, 512, 0.4, 512],
            [('max', 2), 512, 0.4, 512, 0.4, 512],
        ),
        tail=[],
    ),
    'vgg-gap': dict(VGG_ATT, tail=[], global_channels=None),
    'vgg-pan': dict(VGG_ATT, gates=(None, [('max', 4), 512, 0.4, ('max', 2), 512, 0.4], None)),
    'resnet164-att': dict(
        stages=(
            [('stem', 16), *18 * [('unit', 64)]],
            [('unit', 128, 2), *17 * [('unit', 128)]],
            [('unit', 256, 2), *17 * [('unit', 256)]],
        ),
        tail=[('norm',), ('max', 2), 256, 0.4],
        global_channels=256,
        gates=None,
    ),
}


def build_layers(layers: Sequence[Layer], channels: int, norm_cfg: dict) -> tuple[nn.Sequential, int]:
    """The layers of a row such as ``[('max', 2), 512, 0.4]`` of ``ARCHITECTURES``, and the channels of their output."""
    built = nn.Sequential()
    for layer in layers:
        kind, *numbers = (
            layer if isinstance(layer, Sequence) else ('drop' if isinstance(layer, float) else 'conv', layer)
        )
        if kind == 'drop':
            built.append(nn.Dropout(*numbers))
        elif kind == 'max':
            built.append(nn.MaxPool2d(*numbers, ceil_mode=True))
        elif kind == 'to':
            built.append(nn.AdaptiveMaxPool2d(*numbers))
        elif kind == 'norm':
            built.append(norm_relu(norm_cfg, channels))
        elif kind in ('conv', 'stem'):
            (width,) = numbers
            check_integers(channels=width)
            built.append(nn.Conv2d(channels, width, 3, padding=1, bias=kind == 'conv'))
            if kind == 'conv':
                built.extend([build_norm_layer({'eps': 1e-3, **norm_cfg}, width)[1], nn.ReLU(inplace=True)])
            channels = width
        elif kind == 'unit':
            width, stride = (*numbers, 1)[:2]
            projection = channels != width or stride > 1
            unit = PreActBottleneck(channels, width, stride, projection=projection, norm_cfg=norm_cfg)
            unit.conv1.stride, unit.conv2.stride = unit.conv2.stride, unit.conv1.stride  # the authors' place for it
            built.append(unit)
            channels = width
        else:
            raise ValueError(
                f'{layer!r} is no layer. A layer is the channels of a convolution, the rate of a dropout (a float), or '
                "a tuple of 'max', 'to', 'stem', 'unit' or 'norm' and its numbers."
            )
    return built, channels


def _global_net(layers: Sequence[Layer], channels: int, global_channels: int, norm_cfg: dict) -> nn.Sequential:
    """From a feature map to a global vector (N, global_channels, 1, 1)."""
    built, channels = build_layers(layers, channels, norm_cfg)
    return nn.Sequential(
        *built,
        nn.AdaptiveMaxPool2d(1),  # at 32x32 the authors' last pooling; any size is taken so
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(channels, global_channels),
        nn.Unflatten(1, (global_channels, 1, 1)),
    )


def divide_gradient(x: Tensor, consumers: int) -> None:
    """Divide the gradient that arrives at a feature by the number of its consumers, so that theirs are averaged."""
    if x.requires_grad:
        x.register_hook(lambda grad: grad / consumers)


class ProgressiveGate(nn.Module):
    """Gate of the progressive attention network (PAN), as the authors of Learn To Pay Attention built it to compare.

    A map of features is multiplied by ``sigmoid(<u, l + g>)``, where g is a global vector of that map.

    Args:
        channels (int): Channels of the features.
        layers (Sequence[int | float | tuple]): Layers from the features to the pooling under g.
        average_gradients (bool): Whether the features average the gradients from g and from the rest.
        norm_cfg (dict): Normalisation, by MMCV's registry.
    """

    def __init__(self, channels: int, layers: Sequence[Layer], average_gradients: bool, norm_cfg: dict) -> None:
        super().__init__()
        self.average_gradients = average_gradients
        self.to_global = _global_net(layers, channels, channels, norm_cfg)
        self.score = nn.Conv2d(channels, 1, 1)
        self.map = AttentionMap('spatial')

    def forward(self, features: Tensor) -> Tensor:
        if self.average_gradients:
            divide_gradient(features, 2)
        g = self.to_global(features)  # N, C, 1, 1
        attention = self.map(torch.sigmoid(self.score(features + g)))  # N, 1, H, W
        return attention * features


def _min_size(stages: Sequence, gates: Sequence, tail: Sequence[Layer]) -> int:
    """Smallest side for which no pooling takes more than it has."""

    def side_before(layers: Sequence[Layer], side: int) -> int:
        for kind, *numbers in (layer for layer in reversed(layers) if isinstance(layer, Sequence)):
            if kind == 'to':
                side = 1
            elif kind == 'max':
                side *= numbers[0]
            elif kind == 'unit' and len(numbers) > 1:
                side = (side - 1) * numbers[1] + 1
        return side

    side = side_before(tail, 1)
    for stage, gate in zip(reversed(stages), reversed(gates)):
        side = side_before(stage, max(side, side_before(gate or [], 1)))
    return side


@MODELS.register_module()
class PayAttentionNet(BaseModule):
    """VGG and ResNet-164 of Learn To Pay Attention: local features and the global vector.

    | arch          | parameters | outputs at 32x32, one a stage, and the global vector               |
    | ------------- | ---------- | ------------------------------------------------------------------ |
    | vgg-att       | 19,707,456 | 256x32x32 (layer 7), 512x16x16 (layer 10), 512x8x8 (layer 13); 512 |
    | vgg           | 14,985,792 | 64x32x32, 128x16x16, 256x8x8, 512x4x4, 512x2x2; 512                |
    | vgg-gap       | 14,723,136 | those of vgg-att; none                                             |
    | vgg-pan       | 24,692,289 | those of vgg-att, the second one gated; 512                        |
    | resnet164-att | 2,357,072  | 64x32x32, 128x16x16, 256x8x8, all of them raw sums; 256            |

    ``vgg-att`` and ``resnet164-att`` go under the neck :class:`PayAttention`, ``vgg-pan`` under one with a single
    level; ``vgg`` and ``vgg-gap`` are the baselines without attention. Every stage is taken before the pooling that
    follows it.

    Args:
        arch (str | dict): A name of the table or a dict of the fields in ``ARCHITECTURES``: ``stages`` (a list of
            layers each), ``tail`` (layers between the last stage and the global vector), ``global_channels`` (None: no
            global vector) and ``gates`` (None, or for each stage None or the layers under its gate).
            ``dict(base='vgg-att', global_channels=256)`` changes one field of a name. Defaults to ``'vgg-att'``.
        in_channels (int): Channels of the input image. Defaults to 3.
        out_indices (Sequence[int]): Stages whose outputs are returned, from 0. Defaults to (0, 1, 2).
        average_gradients (bool): Whether the gradients that a feature gets from its consumers (the attention and the
            next layer) are averaged instead of summed, as the authors' training does. It changes no output. Defaults
            to False, the gradient of the loss.
        norm_cfg (dict): Normalisation, by MMCV's registry; after the convolutions of VGG with ``eps=1e-3`` unless
            given. Defaults to ``dict(type='BN')``.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to the authors': convolutions from
            N(0, 2 / (k * k * out)), biases 0.

    Attributes:
        min_size (int): Smallest height and width of an input: 16 for the networks of VGG with a global vector, 4 for
            ``vgg-gap``, 5 for ``resnet164-att``.

    Raises:
        ValueError: If an argument does not fit; the message says what would.
    """

    def __init__(
        self,
        arch: str | dict = 'vgg-att',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2),
        average_gradients: bool = False,
        norm_cfg: dict = dict(type='BN'),
        init_cfg: dict | list | None = dict(type='Kaiming', layer='Conv2d'),
    ) -> None:
        super().__init__(init_cfg)
        fields = architecture_fields(arch, ARCHITECTURES, dict.fromkeys(sorted(VGG_ATT), True))
        n = len(fields['stages'])
        gates = fields['gates'] or [None] * n
        if len(gates) != n:
            raise ValueError(f'gates has one entry for each of the {n} stages, not {len(gates)}.')
        global_channels = fields['global_channels']
        if not out_indices and global_channels is None:
            raise ValueError('Nothing to return: give out_indices, or an architecture with a global vector.')
        self.out_indices = stage_indices(out_indices, n) if out_indices else []
        check_integers(in_channels=in_channels)
        self.in_channels = in_channels
        self.average_gradients = average_gradients
        tail = []  # without a global vector there is none
        if global_channels is not None:
            check_integers(global_channels=global_channels)
            tail = fields['tail']
        self.min_size = _min_size(fields['stages'], gates, tail)

        channels = in_channels
        self.stages = [f'stage{i + 1}' for i in range(n)]
        for name, layers, gate in zip(self.stages, fields['stages'], gates):
            stage, channels = build_layers(layers, channels, norm_cfg)
            if gate:
                stage.add_module('gate', ProgressiveGate(channels, gate, average_gradients, norm_cfg))
            self.add_module(name, stage)
        self.to_global = None
        if global_channels is not None:
            self.to_global = _global_net(tail, channels, global_channels, norm_cfg)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Local features and the global vector of images.

        Args:
            x (Tensor): Images (N, in_channels, H, W), H and W at least ``min_size``.

        Returns:
            tuple[Tensor]: For each of ``out_indices`` the features (N, C, h, w), and last, if the network has one, the
            global vector (N, C, 1, 1).

        Raises:
            ValueError: If the shape does not fit.
        """
        check_images(x, self.in_channels, self.min_size)
        outs = []
        for i, name in enumerate(self.stages):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outs.append(x)
                if self.average_gradients and (self.to_global is not None or name != self.stages[-1]):
                    divide_gradient(x, 2)
        if self.to_global is not None:
            outs.append(self.to_global(x))
        return tuple(outs)
