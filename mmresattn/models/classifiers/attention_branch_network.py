"""Attention Branch Network, ABN (Fukui et al., CVPR 2019, arXiv:1812.10025), on any backbone.

The paper's figure from left to right::

                              +-> attention branch (neck) ---------------> scores, attention loss
                              |     last stage at stride 1, norm,            (+ loss of corrected maps)
    image -> extractor -> g --+     class maps, map M
             (backbone)       |                     |
                              +-----> (1 + M) * g <-+
                                           |
                                           +-> perception branch (head) --> scores, perception loss
                                                 last stage, pooling, fc

The backbone stands once in a config. :class:`AttentionBranchNetwork` cuts it before its last downsampling (see
:mod:`~mmresattn.models.backbones.cut`): the modules before the cut are the extractor, those after it the perception
branch's last stage, and a copy of these at stride 1 is the attention branch's. Beside this file stand the multi-task
form (a map per task) and the Bayesian form (dropout in both branches).
"""

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..backbones.cut import LastStage, build_backbone, cut_backbone, rejoined
from ..backbones.stages import INIT_CFG
from ..layers import AttentionMap, norm_relu


class StageOfBackbone(BaseModule):
    """Base of necks and heads with a ``stage`` of the backbone, whose weights start as in the backbone."""

    def init_weights(self) -> None:
        """Initialise everything but the stage."""
        stage, self.stage = self.stage, None
        super().init_weights()
        self.stage = stage


@MODELS.register_module()
class AttentionBranchNeck(StageOfBackbone):
    """The attention branch and the attention mechanism.

    As in the authors' code: the last stage at stride 1, a normalisation without ReLU, one map per class, and from these
    both the attention map and, by a 1x1 convolution and global average pooling, the branch's scores. Convolutions have
    no bias. Nothing is detached, so the perception branch trains the map too.

    Args:
        stage (LastStage): The copy of the backbone's last stage at stride 1.
        num_classes (int): Number of classes, K.
        map_kernel_size (int): Kernel of the convolution from K class maps to the attention map: 3 as in the authors'
            code, or 1 as in the paper's figure; odd. Defaults to 3.
        residual (bool): ``(1 + M) * g`` if True, ``M * g`` if False. Defaults to True.
        norm_cfg (dict): Normalisation, by MMCV's registry. Defaults to ``dict(type='BN')``.
        init_cfg (dict | list[dict], optional): Initialisation of everything but the stage. Defaults to Kaiming by
            fan-out for convolutions and ones for normalisations, as in the authors' code.
    """

    class_weights = ('class_maps', 'class_scores', 'attention')
    added = True  # to a plain classifier

    def __init__(
        self,
        stage: LastStage,
        num_classes: int,
        map_kernel_size: int = 3,
        residual: bool = True,
        norm_cfg: dict = dict(type='BN'),
        init_cfg: dict | list | None = INIT_CFG,
    ) -> None:
        super().__init__(init_cfg)
        if map_kernel_size % 2 == 0:
            raise ValueError(f'map_kernel_size must be odd, so that the map keeps its size; got {map_kernel_size}.')
        channels = stage.out_channels
        self.residual = residual
        self.stage = stage
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

    def forward(self, feats: tuple[Tensor, ...], drop: nn.Module | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Attend.

        Args:
            feats (tuple[Tensor]): Features of the backbone, of which the last, g (N, C, H, W), are used.
            drop (Callable, optional): Dropout after each block of the stage. If it has a length, the batch consists of
                that many passes of the same images, and each pass goes through :class:`AttentionMap` by itself.

        Returns:
            tuple[Tensor]: Attended features (N, C, H, W), the branch's scores (N, K), and the map (N, 1, H, W) in
            [0, 1].
        """
        g = feats[-1]
        maps = self.class_maps(self.norm(self.stage(g, drop)))  # N, K, H, W
        scores = self.class_scores(maps)  # N, K
        attention = self.attention(maps)  # N, 1, H, W
        if drop is None:
            attention = self.map(attention)
        else:
            attention = torch.cat([self.map(m) for m in attention.chunk(len(drop))])
        attended = g * attention  # the same for all channels
        if self.residual:
            attended = attended + g
        return attended, scores, attention


@MODELS.register_module()
class AttentionBranchHead(StageOfBackbone, LinearClsHead):
    """The perception branch and the losses of both branches, with equal weights as in the paper.

    Args:
        stage (LastStage): The backbone's last stage.
        num_classes (int): Number of classes, K.
        map_loss (dict, optional): Loss between the attention maps and those that people have corrected, such as
            ``dict(type='AttentionMapLoss', loss_weight=1.0)``. Defaults to None: there is no such loss.
        **kwargs: Arguments of MMPretrain's ``LinearClsHead``; ``loss`` is the loss of either branch.
    """

    class_weights = ('fc',)

    def __init__(self, stage: LastStage, num_classes: int, map_loss: dict | None = None, **kwargs) -> None:
        super().__init__(num_classes=num_classes, in_channels=stage.out_channels, **kwargs)
        self.stage = stage
        self.map_loss = None if map_loss is None else MODELS.build(map_loss)

    def pre_logits(self, feats: tuple[Tensor, Tensor, Tensor], drop: nn.Module | None = None) -> Tensor:
        """Input of the linear layer (N, in_channels); ``feats`` and ``drop`` as in :class:`AttentionBranchNeck`."""
        return self.stage(feats[0], drop).mean((2, 3))

    def branch_scores(self, feats: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Scores of the attention branch."""
        return feats[1]

    def loss(self, feats: tuple[Tensor, Tensor, Tensor], data_samples: list[DataSample], **kwargs) -> dict[str, Tensor]:
        """Losses of both branches.

        Returns:
            Dict[str, Tensor]: ``perception_loss``, ``attention_loss`` and, if there is one, ``map_loss``, which
            MMEngine adds up. With ``cal_acc`` also the accuracies of both branches.
        """
        branches = {'perception': self(feats), 'attention': self.branch_scores(feats)}
        losses = {
            f'{branch}_{name}': value
            for branch, scores in branches.items()
            for name, value in self._get_loss(scores, data_samples, **kwargs).items()
        }
        if self.map_loss is not None:
            losses['map_loss'] = self.map_loss(feats[2], data_samples)
        return losses

    def predict(
        self, feats: tuple[Tensor, Tensor, Tensor], data_samples: list[DataSample | None] | None = None
    ) -> list[DataSample]:
        """Predictions of the perception branch and, beside them, of the attention branch.

        Returns:
            List[DataSample]: ``pred_score`` (K,) and ``pred_label`` (1,) of the perception branch, and a sample
            ``attention_branch`` with those of the attention branch, for ``dict(type='MultiTasksMetric',
            task_metrics=dict(attention_branch=[dict(type='Accuracy')]))``. Test-time augmentation averages only the
            former.
        """
        samples = super().predict(feats, data_samples)
        for sample, branch in zip(samples, self._get_predictions(self.branch_scores(feats), None)):
            if 'gt_label' in sample:
                branch.set_gt_label(sample.gt_label)
            branch.eval_mask = True  # required by MultiTasksMetric
            sample.set_field(branch, 'attention_branch')
        return samples


@MODELS.register_module()
class AttentionBranchNetwork(ImageClassifier):
    """Attention Branch Network on any backbone.

    A checkpoint of the plain classifier on the same backbone fits, by ``load_from`` or as the backbone's ``init_cfg``:
    it fills the extractor, the perception branch's stage and ``head.fc``, and with ``init_branch`` also the attention
    branch's stage. In this network's own checkpoints they are called ``backbone.*``, ``head.stage.*``, ``head.fc.*``
    and ``neck.stage.*``, with the backbone's names behind ``stage``.

    Example:
        >>> model = MODELS.build(
        ...     dict(
        ...         type='AttentionBranchNetwork',
        ...         backbone=dict(type='ResNet', depth=50),
        ...         head=dict(type='AttentionBranchHead', num_classes=1000),
        ...     )
        ... )
        >>> model(torch.rand(2, 3, 224, 224)).shape
        torch.Size([2, 1000])

    Args:
        backbone (dict): Config of the whole backbone, as for a plain classifier. ``norm_eval`` concerns the extractor.
        head (dict): Config of the head without its ``stage``.
        neck (dict): Config of the neck without its ``stage`` and ``num_classes``, which is the head's. Defaults to
            ``dict(type='AttentionBranchNeck')``.
        cut (str, optional): Name of the backbone's module to cut before, such as ``'layer3'``. Defaults to the last
            downsampling.
        init_branch (bool): Whether the attention branch's stage starts with the weights of the perception branch's,
            those of a plain checkpoint for example, instead of weights of its own. Defaults to False.
        **kwargs: Arguments of MMPretrain's ``ImageClassifier``.

    Raises:
        ValueError: If the backbone cannot be cut, or ``frozen_stages`` goes past the cut.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        neck: dict = dict(type='AttentionBranchNeck'),
        cut: str | None = None,
        init_branch: bool = False,
        **kwargs,
    ) -> None:
        extractor = build_backbone(backbone)
        stage = cut_backbone(extractor, cut)
        neck = {'type': 'AttentionBranchNeck', **neck, 'stage': stage.at_stride_one()}
        neck['num_classes'] = head['num_classes']
        super().__init__(extractor, MODELS.build(neck), MODELS.build({**head, 'stage': stage}), **kwargs)
        self.backbone_config = backbone
        self.cut = cut
        self.init_branch = init_branch

    def init_weights(self) -> None:
        """Initialise the backbone as a whole, both stages with it, and then the rest."""
        if not self.is_init:
            with rejoined(self.backbone, self.head.stage):
                self.backbone.init_weights()
            weights = (self.head.stage if self.init_branch else self._fresh_stage()).state_dict()
            self.neck.stage.load_state_dict({name: weights[name] for name in self.neck.stage.state_dict()})
        super().init_weights()

    def _fresh_stage(self) -> LastStage:
        """The last stage with weights by the default initialisation of its backbone."""
        pretrained = ('init_cfg', 'pretrained', 'checkpoint_path')
        backbone = build_backbone({key: value for key, value in self.backbone_config.items() if key not in pretrained})
        backbone.init_weights()
        return cut_backbone(backbone, self.cut)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Move the weights of a plain classifier to where they are here."""
        for name in self.head.stage.state_dict():
            if f'{prefix}backbone.{name}' in state_dict:
                value = state_dict.pop(f'{prefix}backbone.{name}')
                state_dict[f'{prefix}head.stage.{name}'] = value
                if self.init_branch and name in self.neck.stage.state_dict():
                    state_dict[f'{prefix}neck.stage.{name}'] = value
        super()._load_from_state_dict(state_dict, prefix, *args)

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """Depth of a parameter and number of depths; parameters of both stages are as deep as in the backbone."""
        for stage in ('neck.stage.', 'head.stage.'):
            param_name = param_name.replace(stage, 'backbone.')
        return super().get_layer_depth(param_name)
