"""Multi-task Attention Branch Network (Fukui et al., CVPR 2019, arXiv:1812.10025): a map for each task.

The attention branch makes one map of each task. The features are multiplied by one map after the other, go through one
perception stage that all tasks share, and end in a linear layer of each task's own. Tasks are yes or no.
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..backbones.last_stage import LastStage, without_last_stage
from ..layers import AttentionMap, checkpoint
from ..layers.checks import check_integers

POOLS = {'max': nn.AdaptiveMaxPool2d, 'avg': nn.AdaptiveAvgPool2d}


@MODELS.register_module()
class MultiTaskAttentionBranchNeck(BaseModule):
    """The attention branch of several tasks, after the authors' code for CelebA.

    The last stage of the backbone once more, at stride 1, and a 1x1 convolution without bias to one channel for each
    task. These raw channels, without normalisation or sigmoid, are the maps; pooled they are the branch's scores. The
    map of task t passes the :class:`AttentionMap` named ``maps.t``.

    Args:
        backbone (dict): Config of the whole backbone (see :class:`LastStage`); what comes in is the output of its stage
            before last.
        num_classes (int): Number of tasks, T.
        pool (str): How a map becomes a score: ``'max'`` as for CVPR, ``'avg'`` as in their later code. Defaults to
            ``'max'``.
        init_cfg (dict | list[dict], optional): Initialisation of the convolution. Defaults to LeCun's, by fan-in.

    Raises:
        ValueError: If ``pool`` is neither, or the backbone cannot be cut.
    """

    class_weights = ('attention',)

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        pool: str = 'max',
        init_cfg: dict | list | None = dict(type='Kaiming', layer='Conv2d', mode='fan_in', nonlinearity='linear'),
    ) -> None:
        super().__init__(init_cfg)
        check_integers(num_classes=num_classes)
        if pool not in POOLS:
            raise ValueError(f'pool is one of {list(POOLS)}, not {pool!r}.')
        self.stage = LastStage(backbone, copy=True)
        self.attention = nn.Conv2d(self.stage.out_channels, num_classes, 1, bias=False)
        self.pool = nn.Sequential(POOLS[pool](1), nn.Flatten())
        self.maps = nn.ModuleList(AttentionMap('spatial') for _ in range(num_classes))

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Make the maps.

        Args:
            feats (tuple[Tensor]): Features of the backbone; the last ones, g (N, C, H, W), are used.

        Returns:
            tuple[Tensor]: g, the branch's scores (N, T), and the maps (N, T, H, W), of any sign.
        """
        g = feats[-1]
        maps = self.attention(self.stage(g))  # N, T, H, W
        scores = self.pool(maps)
        maps = torch.cat([tap(m) for tap, m in zip(self.maps, maps.split(1, 1))], 1)
        return g, scores, maps


@MODELS.register_module()
class MultiTaskAttentionBranchHead(MultiLabelClsHead):
    """The perception branch of several tasks: one last stage for all of them, a linear layer of two outputs for each.

    The stage runs T times, once for each task. In evaluation it needs the memory of one pass; in training autograd
    keeps T of them, or with ``with_cp`` only what went in. A task's score is the difference of its two outputs, so that
    its sigmoid is their softmax. BatchNorm sees the tasks one after the other, and updates its statistics T times.

    Args:
        backbone (dict): Config of the whole backbone (see :class:`LastStage`).
        num_classes (int): Number of tasks, T.
        tasks (Sequence[str], optional): Their names, under which predictions are found. Defaults to None: predictions
            of single tasks are not named.
        residual (bool): ``(1 + A_t) * g`` if True, ``A_t * g`` if False, as for CVPR. Defaults to False.
        with_cp (bool): Whether to save memory by recomputing the stage in the backward pass; BatchNorm then updates
            its running statistics twice. Defaults to False.
        loss (dict, optional): Loss of either branch, with targets in [0, 1]. Defaults to None: binary cross-entropy,
            averaged over tasks and images.
        init_cfg (dict | list[dict], optional): Initialisation of the linear layers. Defaults to MMPretrain's.

    Raises:
        ValueError: If the backbone cannot be cut or there are not as many names as tasks.
    """

    class_weights = ('fc',)

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        tasks: Sequence[str] | None = None,
        residual: bool = False,
        with_cp: bool = False,
        loss: dict | None = None,
        init_cfg: dict | list | None = dict(type='Normal', layer='Linear', std=0.01),
    ) -> None:
        if tasks is not None and len(set(tasks)) != num_classes:
            raise ValueError(
                f'tasks are {num_classes} different names, one for each of num_classes; got {list(tasks)}.'
            )
        # MMPretrain divides the sum over tasks and images by the number of images.
        loss = loss or dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1 / num_classes)
        super().__init__(loss, init_cfg=init_cfg)
        self.tasks = list(tasks or ())
        self.residual = residual
        self.with_cp = with_cp
        self.stage = LastStage(backbone)
        self.fc = nn.ModuleList(nn.Linear(self.stage.out_channels, 2) for _ in range(num_classes))

    def pre_logits(self, feats: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """What the linear layers classify.

        Args:
            feats (tuple[Tensor]): From :class:`MultiTaskAttentionBranchNeck`.

        Returns:
            Tensor: (N, T, in_channels).
        """
        g, _, maps = feats
        hidden = []
        for m in maps.split(1, 1):  # N, 1, H, W
            x = g * (1 + m) if self.residual else g * m
            x = checkpoint(self.stage, x) if self.with_cp and x.requires_grad else self.stage(x)
            hidden.append(x.mean((2, 3)))
        return torch.stack(hidden, 1)

    def forward(self, feats: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Scores of the perception branch.

        Args:
            feats (tuple[Tensor]): From :class:`MultiTaskAttentionBranchNeck`.

        Returns:
            Tensor: (N, T); positive for yes.
        """
        hidden = self.pre_logits(feats)
        scores = torch.stack([fc(h) for fc, h in zip(self.fc, hidden.unbind(1))], 1)  # N, T, 2
        return scores[..., 1] - scores[..., 0]

    def loss(self, feats: tuple[Tensor, Tensor, Tensor], data_samples: list[DataSample], **kwargs) -> dict[str, Tensor]:
        """Losses of both branches.

        Args:
            feats (tuple[Tensor]): From :class:`MultiTaskAttentionBranchNeck`.
            data_samples (list[DataSample]): With ``gt_score`` (T,), 1 for yes and 0 for no.
            **kwargs: For the loss.

        Returns:
            Dict[str, Tensor]: ``perception_loss`` and ``attention_loss``, which MMEngine adds up.
        """
        branches = {'perception_loss': self(feats), 'attention_loss': feats[1]}
        return {name: self._get_loss(scores, data_samples, **kwargs)['loss'] for name, scores in branches.items()}

    def predict(
        self, feats: tuple[Tensor, Tensor, Tensor], data_samples: list[DataSample] | None = None
    ) -> list[DataSample]:
        """Predictions of both branches.

        MMPretrain's ``MultiTasksMetric`` evaluates what is under a name: ``dict(type='MultiTasksMetric',
        task_metrics=dict(all_tasks=[dict(type='Accuracy')], Smiling=[dict(type='Accuracy')]))``.

        Args:
            feats (tuple[Tensor]): From :class:`MultiTaskAttentionBranchNeck`.
            data_samples (list[DataSample], optional): Samples to write into.

        Returns:
            List[DataSample]: ``pred_score`` (T,), how likely each yes is, and ``pred_label``, the tasks of a yes. Under
            ``all_tasks`` and ``attention_branch`` a sample with the 0 or 1 of each task (T,) as ``pred_label``, that of
            the perception and of the attention branch, and the true ones as ``gt_label`` where there is ``gt_score``;
            under each name of a task a sample with its own (1,).
        """
        samples = self._get_predictions(self(feats), data_samples)
        attention = (feats[1].sigmoid() >= self.thr).long().cpu()  # N, T
        for sample, of_attention in zip(samples, attention):
            answers = (sample.pred_score >= self.thr).long().cpu()
            truth = dict(gt_label=sample.gt_score.long().cpu()) if 'gt_score' in sample else {}
            sample.all_tasks = DataSample(pred_label=answers, eval_mask=True, **truth)
            sample.attention_branch = DataSample(pred_label=of_attention, eval_mask=True, **truth)
            for i, task in enumerate(self.tasks):
                own = {key: value[i : i + 1] for key, value in truth.items()}
                sample.set_field(DataSample(pred_label=answers[i : i + 1], eval_mask=True, **own), task)
        return samples


def multi_task_attention_branch_network(
    backbone: dict,
    num_classes: int,
    pool: str = 'max',
    init_branch: bool = False,
    **head,
) -> dict:
    """Config of the multi-task Attention Branch Network on a backbone.

    Args:
        backbone (dict): Config of the whole backbone, as for a plain classifier. Its ``init_cfg`` of type
            ``Pretrained`` loads the weights of a plain classifier into the extractor and the perception stage.
        num_classes (int): Number of tasks.
        pool (str): See :class:`MultiTaskAttentionBranchNeck`. Defaults to ``'max'``.
        init_branch (bool): Whether that ``init_cfg`` also serves the attention branch's copy of the stage. Defaults to
            False.
        **head: Other arguments of :class:`MultiTaskAttentionBranchHead`.

    Returns:
        dict: Config of an ``ImageClassifier``.

    Raises:
        ValueError: If ``frozen_stages`` of the backbone goes past the cut.
    """
    fresh = {key: value for key, value in backbone.items() if key != 'init_cfg'}
    neck = dict(backbone=backbone if init_branch else fresh, num_classes=num_classes, pool=pool)
    return dict(
        type='ImageClassifier',
        backbone=without_last_stage(backbone),
        neck=dict(type='MultiTaskAttentionBranchNeck', **neck),
        head=dict(type='MultiTaskAttentionBranchHead', backbone=backbone, num_classes=num_classes, **head),
    )
