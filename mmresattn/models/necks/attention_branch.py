"""Attention Branch Network (Fukui et al., CVPR 2019, arXiv:1812.10025): the attention branch.

A backbone is cut before its last stage. What is left gives features g. The attention branch makes a map M of them, and
scores of its own that teach the map what matters; the perception branch, which is the head, classifies (1 + M) * g with
the stage that was cut off.
"""

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..backbones.last_stage import LastStage, without_last_stage
from ..layers import AttentionMap, norm_relu
from ..layers.checks import check_integers, name_single_values


@MODELS.register_module()
class AttentionBranchNeck(BaseModule):
    """The attention branch and its mechanism.

    The graph is that of the authors' code: the last stage of the backbone once more, at stride 1; a normalisation
    without ReLU; a map for each class; from these the attention map and, by another 1x1 convolution and global average
    pooling, the branch's scores. No convolution has a bias. Nothing is detached: the perception branch also trains the
    map. The map passes the :class:`AttentionMap` named ``map``.

    Args:
        backbone (dict): Config of the whole backbone (see :class:`LastStage`); what comes in is the output of its stage
            before last.
        num_classes (int): Number of classes, K.
        map_kernel_size (int): Of the convolution that makes one map of K: 3 as in the authors' code, or 1 as in the
            paper's figure; odd. Defaults to 3.
        residual (bool): ``(1 + M) * g`` if True, ``M * g`` if False. Defaults to True.
        init_cfg (dict | list[dict], optional): Initialisation of all but the stage, which starts as in its backbone.
            Defaults to Kaiming's by fan-out and ones for the normalisations, as in the authors' code.

    Raises:
        ValueError: If ``map_kernel_size`` is even or the backbone cannot be cut.
    """

    class_weights = ('class_maps', 'class_scores', 'attention')

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        map_kernel_size: int = 3,
        residual: bool = True,
        init_cfg: dict | list | None = (
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
        ),
    ) -> None:
        super().__init__(list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        check_integers(num_classes=num_classes, map_kernel_size=map_kernel_size)
        if map_kernel_size % 2 == 0:
            raise ValueError(f'map_kernel_size is odd, so that the map keeps its size; got {map_kernel_size}.')
        self.residual = residual
        norm_cfg = backbone.get('norm_cfg', dict(type='BN'))
        self.stage = LastStage(backbone, copy=True)
        channels = self.stage.out_channels
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.class_maps = nn.Sequential(
            nn.Conv2d(channels, num_classes, 1, bias=False), norm_relu(norm_cfg, num_classes)
        )
        self.class_scores = nn.Sequential(
            nn.Conv2d(num_classes, num_classes, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.attention = nn.Sequential(
            nn.Conv2d(num_classes, 1, map_kernel_size, padding=map_kernel_size // 2, bias=False),
            build_norm_layer(norm_cfg, 1)[1],
            nn.Sigmoid(),
        )
        self.map = AttentionMap('spatial')

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Attend.

        Args:
            feats (tuple[Tensor]): Features of the backbone; the last ones, g (N, C, H, W), are used.

        Returns:
            tuple[Tensor]: Attended features (N, C, H, W), the branch's scores (N, K), and the map (N, 1, H, W) in
            [0, 1].
        """
        return self.attend(feats[-1], self.stage(feats[-1]))

    @name_single_values
    def attend(self, g: Tensor, hidden: Tensor, passes: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Attend, once the stage has run.

        Args:
            g (Tensor): Features (N, C, H, W).
            hidden (Tensor): What the stage makes of them (N, C', H, W).
            passes (int): How many passes of the same images one after the other make up the batch. The map of each
                passes :class:`AttentionMap` by itself. Defaults to 1.

        Returns:
            tuple[Tensor]: As :meth:`forward`.
        """
        maps = self.class_maps(self.norm(hidden))  # N, K, H, W
        scores = self.class_scores(maps)
        attention = torch.cat([self.map(m) for m in self.attention(maps).chunk(passes)])
        attended = g * attention  # of all channels alike
        if self.residual:
            attended = attended + g
        return attended, scores, attention


def attention_branch_network(
    backbone: dict,
    num_classes: int,
    map_kernel_size: int = 3,
    residual: bool = True,
    init_branch: bool = False,
    topk: int | tuple[int, ...] = (1, 5),
    **head,
) -> dict:
    """Config of the Attention Branch Network on a backbone.

    Example:
        >>> model = attention_branch_network(dict(type='ResNet', depth=50), num_classes=1000)
        >>> MODELS.build(model)(images, mode='tensor').shape
        torch.Size([2, 1000])

    Args:
        backbone (dict): Config of the whole backbone, as for a plain classifier. Its
            ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone')`` loads the weights of a plain
            classifier into the extractor and the perception stage.
        num_classes (int): Number of classes.
        map_kernel_size (int): See :class:`AttentionBranchNeck`. Defaults to 3.
        residual (bool): See :class:`AttentionBranchNeck`. Defaults to True.
        init_branch (bool): Whether that ``init_cfg`` also serves the attention branch's copy of the stage, which else
            starts by the default of its backbone. Defaults to False.
        topk (int | tuple[int]): For the head's accuracy in training. Defaults to (1, 5).
        **head: Other arguments of :class:`AttentionBranchHead`.

    Returns:
        dict: Config of an ``ImageClassifier``.

    Raises:
        ValueError: If ``frozen_stages`` of the backbone goes past the cut.
    """
    fresh = {key: value for key, value in backbone.items() if key != 'init_cfg'}
    return dict(
        type='ImageClassifier',
        backbone=without_last_stage(backbone),
        neck=dict(
            type='AttentionBranchNeck',
            backbone=backbone if init_branch else fresh,
            num_classes=num_classes,
            map_kernel_size=map_kernel_size,
            residual=residual,
        ),
        head=dict(type='AttentionBranchHead', backbone=backbone, num_classes=num_classes, topk=topk, **head),
    )
