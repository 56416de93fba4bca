"""Multi-task Attention Branch Network (Fukui et al., CVPR 2019, arXiv:1812.10025): a map per yes-or-no task.

The neck and the head of an :class:`~mmresattn.models.AttentionBranchNetwork` for several tasks. The attention branch
makes one map per task. The features are multiplied by one map after the other, and pass one perception stage that all
tasks share and one linear layer per task.
"""

from collections.abc import Sequence

import torch
from mmengine.registry import MODELS
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..backbones.cut import LastStage
from ..layers import AttentionMap, checkpoint
from .attention_branch_network import StageOfBackbone

POOLS = {'max': nn.AdaptiveMaxPool2d, 'avg': nn.AdaptiveAvgPool2d}


@MODELS.register_module()
class MultiTaskAttentionBranchNeck(StageOfBackbone):
    """The attention branch for several tasks, as in the authors' code for CelebA.

    The last stage at stride 1 and a 1x1 convolution without bias to one channel per task. These raw channels, without
    normalisation or sigmoid, are the maps; pooled they are the branch's scores. The map of task t passes the
    :class:`AttentionMap` named ``maps.t``.

    Args:
        stage (LastStage): The copy of the backbone's last stage at stride 1.
        num_classes (int): Number of tasks, T.
        pool (str): How a map becomes a score: ``'max'`` as for CVPR, ``'avg'`` as in their later code. Defaults to
            ``'max'``.
        init_cfg (dict | list[dict], optional): Initialisation of the convolution. Defaults to LeCun's, by fan-in.
    """

    class_weights = ('attention',)
    added = True  # to a plain classifier

    def __init__(
        self,
        stage: LastStage,
        num_classes: int,
        pool: str = 'max',
        init_cfg: dict | list | None = dict(type='Kaiming', layer='Conv2d', mode='fan_in', nonlinearity='linear'),
    ) -> None:
        super().__init__(init_cfg)
        if pool not in POOLS:
            raise ValueError(f'pool must be one of {list(POOLS)}, not {pool!r}.')
        self.stage = stage
        self.attention = nn.Conv2d(stage.out_channels, num_classes, 1, bias=False)
        self.pool = nn.Sequential(POOLS[pool](1), nn.Flatten())
        self.maps = nn.ModuleList(AttentionMap('spatial') for _ in range(num_classes))

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """From features of the backbone, of which the last, g (N, C, H, W), are used.

        Returns:
            tuple[Tensor]: g, the branch's scores (N, T), and the maps (N, T, H, W), of any sign.
        """
        g = feats[-1]
        maps = self.attention(self.stage(g))  # N, T, H, W
        scores = self.pool(maps)
        maps = torch.cat([tap(m) for tap, m in zip(self.maps, maps.split(1, 1))], 1)
        return g, scores, maps


@MODELS.register_module()
class MultiTaskAttentionBranchHead(StageOfBackbone, MultiLabelClsHead):
    """The perception branch for several tasks: one last stage for all of them, one linear layer of two outputs each.

    The stage runs T times, once per task. In evaluation it needs the memory of one pass; in training autograd keeps T
    of them, or with ``with_cp`` only their inputs. A task's score is the difference of its two outputs, so that its
    sigmoid is their softmax. BatchNorm sees the tasks one after the other, and updates its statistics T times.

    Args:
        stage (LastStage): The backbone's last stage.
        num_classes (int): Number of tasks, T.
        tasks (Sequence[str], optional): Their names, under which predictions are found. Defaults to None: predictions
            of single tasks have no names.
        residual (bool): ``(1 + A_t) * g`` if True, ``A_t * g`` if False, as for CVPR. Defaults to False.
        with_cp (bool): Whether to save memory by recomputing the stage in the backward pass; BatchNorm then updates
            its running statistics twice. Defaults to False.
        loss (dict, optional): Loss of either branch, with targets in [0, 1]. Defaults to None: binary cross-entropy,
            averaged over tasks and images.
        init_cfg (dict | list[dict], optional): Initialisation of the linear layers. Defaults to MMPretrain's.

    Raises:
        ValueError: If ``tasks`` are not ``num_classes`` different names.
    """

    class_weights = ('fc',)

    def __init__(
        self,
        stage: LastStage,
        num_classes: int,
        tasks: Sequence[str] | None = None,
        residual: bool = False,
        with_cp: bool = False,
        loss: dict | None = None,
        init_cfg: dict | list | None = dict(type='Normal', layer='Linear', std=0.01),
    ) -> None:
        if tasks is not None and len(set(tasks)) != num_classes:
            raise ValueError(f'tasks must be {num_classes} different names, as num_classes says; got {list(tasks)}.')
        # MMPretrain divides the sum over tasks and images by the number of images.
        loss = loss or dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1 / num_classes)
        super().__init__(loss=loss, init_cfg=init_cfg)
        self.tasks = list(tasks or ())
        self.residual = residual
        self.with_cp = with_cp
        self.stage = stage
        self.fc = nn.ModuleList(nn.Linear(stage.out_channels, 2) for _ in range(num_classes))

    def pre_logits(self, feats: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Inputs of the linear layers (N, T, in_channels); ``feats`` are from :class:`MultiTaskAttentionBranchNeck`."""
        g, _, maps = feats
        hidden = []
        for m in maps.split(1, 1):  # N, 1, H, W
            x = g * (1 + m) if self.residual else g * m
            x = checkpoint(self.stage, x) if self.with_cp and x.requires_grad else self.stage(x)
            hidden.append(x.mean((2, 3)))
        return torch.stack(hidden, 1)

    def forward(self, feats: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Scores of the perception branch (N, T), positive for yes."""
        hidden = self.pre_logits(feats)
        scores = torch.stack([fc(h) for fc, h in zip(self.fc, hidden.unbind(1))], 1)  # N, T, 2
        return scores[..., 1] - scores[..., 0]

    def loss(self, feats: tuple[Tensor, Tensor, Tensor], data_samples: list[DataSample], **kwargs) -> dict[str, Tensor]:
        """``perception_loss`` and ``attention_loss``, for samples with ``gt_score`` (T,), 1 for yes and 0 for no."""
        branches = {'perception_loss': self(feats), 'attention_loss': feats[1]}
        return {name: self._get_loss(scores, data_samples, **kwargs)['loss'] for name, scores in branches.items()}

    def predict(
        self, feats: tuple[Tensor, Tensor, Tensor], data_samples: list[DataSample] | None = None
    ) -> list[DataSample]:
        """Predictions of both branches.

        Each name can be evaluated: ``dict(type='MultiTasksMetric', task_metrics=dict(all_tasks=[dict(type='Accuracy')],
        Smiling=[dict(type='Accuracy')]))``.

        Returns:
            List[DataSample]: ``pred_score`` (T,), the probability of yes, and ``pred_label``, the tasks answered yes.
            ``all_tasks`` and ``attention_branch`` are samples with the answers 0 or 1 of the perception and of the
            attention branch, (T,), as ``pred_label``, and with the true ones as ``gt_label`` where there is
            ``gt_score``; under the name of each task is a sample with its own answer (1,).
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
