"""The networks of Learn To Pay Attention (Jetley et al., ICLR 2018, arXiv:1804.02391), up to the global vector."""

import re
from collections.abc import Sequence

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..layers import AttentionMap, PreActBottleneck, norm_relu
from ..layers.checks import check_images, check_integers, name_single_values

# One row a network. A plan lists layers in their order: `conv64` is a 3x3 convolution to 64 channels with normalisation
# and ReLU, `drop.3` dropout, `max2` a max pooling by 2, `to32` one to 32x32 from any size, `stem16` a bare 3x3
# convolution, `unit64/2` a pre-activation bottleneck of stride 2, `norm` normalisation and ReLU.
VGG_ATT = dict(
    stages=(  # the poolings of plain VGG after the 2nd and the 4th convolution are gone: 32x32, 16x16 and 8x8 at 32
        'conv64 drop.3 conv64 conv128 drop.4 conv128 conv256 drop.4 conv256 drop.4 conv256',
        'max2 conv512 drop.4 conv512 drop.4 conv512',
        'max2 conv512 drop.4 conv512 drop.4 conv512',
    ),
    tail='max2 conv512 drop.4 max2 conv512 drop.4',  # between the last stage and the pooling that leaves 1x1
    global_channels=512,  # None: there is no global vector
    gates=None,  # or one entry a stage: None, or the plan of the global vector that gates its output
)
ARCHITECTURES = {
    'vgg-att': VGG_ATT,
    'vgg': dict(
        VGG_ATT,
        stages=(
            'conv64 drop.3 conv64',
            'max2 conv128 drop.4 conv128',
            'max2 conv256 drop.4 conv256 drop.4 conv256',
            'max2 conv512 drop.4 conv512 drop.4 conv512',
            'max2 conv512 drop.4 conv512 drop.4 conv512',
        ),
        tail='',
    ),
    'vgg-gap': dict(VGG_ATT, tail='', global_channels=None),
    'vgg-pan': dict(VGG_ATT, gates=(None, 'max4 conv512 drop.4 max2 conv512 drop.4', None)),
    'resnet164-att': dict(
        stages=('stem16' + 18 * ' unit64', 'unit128/2' + 17 * ' unit128', 'unit256/2' + 17 * ' unit256'),
        tail='norm max2 conv256 drop.4',
        global_channels=256,
        gates=None,
    ),
}
LAYERS = ('conv', 'drop', 'max', 'to', 'stem', 'unit', 'norm')


def parse_plan(plan: str) -> list[tuple[str, float, int]]:
    """The layers of a plan.

    Args:
        plan (str): Such as ``'max2 conv512 drop.4'``.

    Returns:
        List[Tuple[str, float, int]]: Kind, number (0 for ``norm``) and stride of each layer.

    Raises:
        ValueError: If a word of the plan is no layer.
    """
    layers = []
    for word in plan.split():
        parts = re.fullmatch(r'([a-z]+)(\d*\.?\d+)?(?:/(\d+))?', word)
        kind, number, stride = parts.groups() if parts else (None, None, None)
        if kind not in LAYERS or (number is None) != (kind == 'norm') or (stride and kind != 'unit'):
            raise ValueError(
                f'{word!r} is no layer of a plan; expected words such as conv64, drop.4, max2, to32, stem16, unit64, '
                f'unit128/2 and norm. The plan is {plan!r}.'
            )
        number, stride = float(number or 0), int(stride or 1)
        whole = kind == 'norm' or number >= 1 and number.is_integer()
        if stride < 1 or not (number <= 1 if kind == 'drop' else whole):
            raise ValueError(
                f'{word!r} is no layer of a plan: dropout is from 0 to 1, and channels, sizes and strides are integers '
                f'of at least 1. The plan is {plan!r}.'
            )
        layers.append((kind, number, stride))
    return layers


def build_plan(plan: str, channels: int, norm_cfg: dict) -> tuple[nn.Sequential, int]:
    """Build the layers of a plan.

    Args:
        plan (str): Such as ``'max2 conv512 drop.4'``.
        channels (int): Channels of the input.
        norm_cfg (dict): Normalisation, by MMCV's registry.

    Returns:
        Tuple[nn.Sequential, int]: The layers and the channels of their output.

    Raises:
        ValueError: If a word of the plan is no layer.
    """
    layers = nn.Sequential()
    for kind, number, stride in parse_plan(plan):
        if kind == 'drop':
            layers.append(nn.Dropout(number))
            continue
        number = int(number)
        if kind == 'conv':
            norm = build_norm_layer({'eps': 1e-3, **norm_cfg}, number)[1]
            layers.extend([nn.Conv2d(channels, number, 3, padding=1), norm, nn.ReLU(inplace=True)])
        elif kind == 'max':
            layers.append(nn.MaxPool2d(number, ceil_mode=True))
        elif kind == 'to':
            layers.append(nn.AdaptiveMaxPool2d(number))
        elif kind == 'stem':
            layers.append(nn.Conv2d(channels, number, 3, padding=1, bias=False))
        elif kind == 'norm':
            layers.append(norm_relu(norm_cfg, channels))
        elif kind == 'unit':
            projection = channels != number or stride > 1
            unit = PreActBottleneck(channels, number, stride, projection=projection, norm_cfg=norm_cfg)
            unit.conv1.stride, unit.conv2.stride = unit.conv2.stride, unit.conv1.stride  # the authors' place for it
            layers.append(unit)
        if kind in ('conv', 'stem', 'unit'):
            channels = number
    return layers, channels


def _global_net(plan: str, channels: int, global_channels: int, norm_cfg: dict) -> nn.Sequential:
    """From a feature map to a global vector (N, global_channels, 1, 1)."""
    layers, channels = build_plan(plan, channels, norm_cfg)
    return nn.Sequential(
        *layers,
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
        plan (str): Layers from the features to the pooling under g.
        average_gradients (bool): Whether the features average the gradients from g and from the rest.
        norm_cfg (dict): Normalisation, by MMCV's registry.
    """

    def __init__(self, channels: int, plan: str, average_gradients: bool, norm_cfg: dict) -> None:
        super().__init__()
        self.average_gradients = average_gradients
        self.to_global = _global_net(plan, channels, channels, norm_cfg)
        self.score = nn.Conv2d(channels, 1, 1)
        self.map = AttentionMap('spatial')

    def forward(self, features: Tensor) -> Tensor:
        if self.average_gradients:
            divide_gradient(features, 2)
        g = self.to_global(features)  # N, C, 1, 1
        attention = self.map(torch.sigmoid(self.score(features + g)))  # N, 1, H, W
        return attention * features


def _min_size(stages: Sequence[str], gates: Sequence[str | None], tail: str) -> int:
    """Smallest side for which no pooling takes more than it has."""

    def side_before(plan: str, side: int) -> int:
        for kind, number, stride in reversed(parse_plan(plan)):
            if kind == 'to':
                side = 1
            elif kind == 'max':
                side *= int(number)
            side = (side - 1) * stride + 1
        return side

    side = side_before(tail, 1)
    for stage, gate in zip(reversed(stages), reversed(gates)):
        side = side_before(stage, max(side, side_before(gate or '', 1)))
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
        arch (str | dict): A name of the table or a dict of the fields in ``ARCHITECTURES``: ``stages`` (one plan of
            layers each), ``tail`` (plan between the last stage and the global vector), ``global_channels`` (None: no
            global vector) and ``gates`` (None, or for each stage None or the plan under its gate).
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
        fields = dict(base=arch) if isinstance(arch, str) else dict(arch)
        base = fields.pop('base', None)
        if base is not None and base not in ARCHITECTURES:
            raise ValueError(f'Unknown architecture {base!r}; there are {list(ARCHITECTURES)}, or give a dict.')
        fields = {**ARCHITECTURES.get(base, {}), **fields}
        if set(fields) != set(VGG_ATT):
            raise ValueError(
                f'An architecture has the fields {list(VGG_ATT)} (and base); '
                f'missing: {sorted(set(VGG_ATT) - set(fields))}, unknown: {sorted(set(fields) - set(VGG_ATT))}.'
            )
        if not isinstance(fields['stages'], Sequence) or isinstance(fields['stages'], str) or not fields['stages']:
            raise ValueError(f"stages are one or more plans of layers, such as ('conv64',), not {fields['stages']!r}.")
        n = len(fields['stages'])
        gates = fields['gates'] or [None] * n
        if len(gates) != n:
            raise ValueError(f'gates has one entry for each of the {n} stages, not {len(gates)}.')
        self.out_indices = sorted(out_indices)
        if len(set(out_indices)) < len(out_indices) or not all(0 <= index < n for index in out_indices):
            raise ValueError(f'out_indices are different stages from 0 to {n - 1}, not {list(out_indices)}.')
        if not out_indices and fields['global_channels'] is None:
            raise ValueError('Nothing to return: give out_indices, or an architecture with a global vector.')
        check_integers(in_channels=in_channels)
        if fields['global_channels'] is not None:
            check_integers(global_channels=fields['global_channels'])
        self.in_channels = in_channels
        self.average_gradients = average_gradients
        # Without a global vector there is no tail.
        tail = '' if fields['global_channels'] is None else fields['tail']
        self.min_size = _min_size(fields['stages'], gates, tail)

        channels = in_channels
        self.stages = []
        for i, plan in enumerate(fields['stages']):
            stage, channels = build_plan(plan, channels, norm_cfg)
            if gates[i]:
                stage.add_module('gate', ProgressiveGate(channels, gates[i], average_gradients, norm_cfg))
            self.add_module(f'stage{i + 1}', stage)
            self.stages.append(f'stage{i + 1}')
        self.to_global = None
        if fields['global_channels'] is not None:
            self.to_global = _global_net(fields['tail'], channels, fields['global_channels'], norm_cfg)

    @name_single_values
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
