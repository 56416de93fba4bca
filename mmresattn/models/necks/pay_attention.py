"""Attention of Learn To Pay Attention (Jetley et al., ICLR 2018, arXiv:1804.02391, section 3)."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..backbones.pay_attention_vgg import divide_gradient
from ..layers import AttentionMap
from ..layers.checks import check_integers

SCORES = {'pc': 'parametrised compatibility <u, l + g>', 'dp': 'dot product <l, g>'}


class AttentionLevel(nn.Module):
    """Attention over the positions of one feature map, and the features that it gathers.

    The local features l_i and the global vector g give scores c_i; the attention is their softmax over all positions
    of an image, and the output the mean of the l_i that it weights.

    The options are those of :class:`PayAttention`.

    Attributes:
        out_channels (int): Channels of the output.
    """

    def __init__(self, channels: int, global_channels: int, score: str, project: str, dropout: float) -> None:
        super().__init__()
        self.project_local = nn.Identity()
        self.project_global = nn.Identity()
        if channels != global_channels:
            self.project_global = nn.Sequential(
                nn.BatchNorm1d(global_channels), nn.ReLU(inplace=True), nn.Dropout(dropout)
            )
            if project == 'global':
                self.project_global.append(nn.Linear(global_channels, channels))
            else:
                self.project_local = nn.Conv2d(channels, global_channels, 1)
                channels = global_channels
        self.out_channels = channels
        self.score = nn.Conv2d(channels, 1, 1) if score == 'pc' else None  # u; its bias cancels in the softmax
        self.map = AttentionMap('spatial')

    def forward(self, features: Tensor, g: Tensor) -> Tensor:
        features = self.project_local(features)  # N, C, H, W
        g = self.project_global(g)[:, :, None, None]  # N, C, 1, 1
        if self.score is None:
            scores = (features * g).sum(1, keepdim=True)  # N, 1, H, W
        else:
            scores = self.score(features + g)  # N, 1, H, W
        attention = self.map(scores.flatten(2).softmax(2).view_as(scores))
        return (attention * features).sum((2, 3))  # N, C


@MODELS.register_module()
class PayAttention(BaseModule):
    """Learn To Pay Attention: from local features and a global vector to attended features.

    For each level, an attention of sum one over the positions of a feature map; its maps are named ``level1.map``,
    ``level2.map`` and so on, after the order of the levels. The global vector itself goes no further. It is the last
    of the inputs: that of :class:`PayAttentionNet`, or the mean over the last feature map of any other backbone.

    With ``'pc'`` the global vector does not change the attention: <u, l_i + g> is <u, l_i> plus a number that is the
    same at all positions, which the softmax takes out. Layers that lead to g alone then learn nothing.

    Args:
        in_channels (Sequence[int]): Channels of the inputs.
        levels (Sequence[int], optional): Inputs that are attended to, from 0. Defaults to all but the last.
        score (str): ``'pc'``, parametrised compatibility <u, l + g>, or ``'dp'``, dot product <l, g>. Defaults to
            ``'pc'``.
        project (str): What is projected where widths differ: ``'global'``, g by BN, ReLU, dropout and a linear layer,
            so that the attended features stay as wide as the local ones; or ``'local'``, l by a 1x1 convolution, after
            which g passes BN, ReLU and dropout, and the attended features are as wide as g. Defaults to ``'global'``.
        global_channels (int, optional): If given, g is a linear projection of the last input, with dropout, to so many
            channels. Defaults to None: g is the last input.
        dropout (float): Dropout before projections of g, from 0 to below 1. Defaults to 0.5.
        average_gradients (bool): Whether the gradients that g gets from the levels are averaged instead of summed, as
            the authors' training does. Defaults to False, the gradient of the loss.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to the authors': convolutions, u among them,
            from N(0, 2 / out), biases 0.

    Attributes:
        out_channels (List[int]): Channels of the outputs, what the head needs.

    Raises:
        ValueError: If an argument does not fit; the message says what would.
    """

    added = True  # to a plain classifier

    def __init__(
        self,
        in_channels: Sequence[int],
        levels: Sequence[int] | None = None,
        score: str = 'pc',
        project: str = 'global',
        global_channels: int | None = None,
        dropout: float = 0.5,
        average_gradients: bool = False,
        init_cfg: dict | list | None = dict(type='Kaiming', layer='Conv2d'),
    ) -> None:
        super().__init__(init_cfg)
        if global_channels is not None:
            check_integers(global_channels=global_channels)
        levels = list(range(len(in_channels) - 1) if levels is None else levels)
        if not levels or len(set(levels)) < len(levels) or not all(0 <= i < len(in_channels) for i in levels):
            raise ValueError(
                f'levels are one or more different inputs from 0 to {len(in_channels) - 1}, not {levels}. in_channels '
                'names the local features and, last, the source of the global vector.'
            )
        if score not in SCORES:
            raise ValueError(f'score is one of {SCORES}, not {score!r}.')
        if project not in ('global', 'local'):
            raise ValueError(f"project is 'global' or 'local', not {project!r}.")
        self.in_channels = list(in_channels)
        self.levels = levels
        self.average_gradients = average_gradients
        self.to_global = nn.Identity()
        if global_channels is not None:
            self.to_global = nn.Sequential(nn.Dropout(dropout), nn.Linear(in_channels[-1], global_channels))
        g_channels = global_channels or in_channels[-1]
        self.out_channels = []
        for k, i in enumerate(levels):
            level = AttentionLevel(in_channels[i], g_channels, score, project, dropout)
            self.add_module(f'level{k + 1}', level)
            self.out_channels.append(level.out_channels)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Attended features.

        Args:
            inputs (Sequence[Tensor]): Feature maps (N, C, H, W), one for each of ``in_channels``, the last one the
                source of g.

        Returns:
            tuple[Tensor]: For each level the attended features (N, C).

        Raises:
            ValueError: If the inputs are not those that ``in_channels`` announces.
        """
        shapes = [tuple(x.shape) for x in inputs]
        if [len(shape) for shape in shapes] != [4] * len(self.in_channels) or (
            [shape[1] for shape in shapes] != self.in_channels
        ):
            raise ValueError(
                f'Expected feature maps (N, C, H, W) of {self.in_channels} channels, got {shapes}. Set in_channels of '
                'the neck, or out_indices of the backbone.'
            )
        g = self.to_global(inputs[-1].mean((2, 3)))  # N, C
        if self.average_gradients:
            divide_gradient(g, len(self.levels))
        return tuple(getattr(self, f'level{k + 1}')(inputs[i], g) for k, i in enumerate(self.levels))
