"""An attention branch in any detector of MMDetection, after the Attention Branch Network (arXiv:1812.10025).

From left to right::

                                 +-> branch: convolutions, class maps -> what is where, branch loss
                                 |             map M = the likeliest class   (+ loss of corrected maps)
    image -> backbone -> neck -> P_l               |
                                 +--> (1 + M_l) P_l  (or M_l P_l) -> the detector's own heads and losses

The authors have published their branch for classifiers. Here one branch, shared by the levels of the neck, predicts for
each position which classes are there; it learns from the boxes, or from the classes of an image alone.
"""

from collections.abc import Sequence
from functools import cache
from math import log
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..layers import AttentionMap, class_heat


class BranchOutput(NamedTuple):
    """What the branch says of one level."""

    classes: Tensor  # N, K, h, w: logits of what is there
    attention: Tensor  # N, 1, h, w: the map in [0, 1]


@MODELS.register_module()
class DetectionBranch(BaseModule):
    """What is where, on the levels of a neck, and a map of it that weights their features.

    The map is the probability of the likeliest class at each position. Nothing is detached, so the detector's losses
    train it too. Its taps are ``branch.maps.0``, ``branch.maps.1`` and so on, after the order of ``levels``.

    Args:
        num_classes (int): Number of classes, K.
        in_channels (int): Channels of the levels.
        levels (Sequence[int]): Levels of the neck that are attended to, from 0. Defaults to ``(0, 1, 2)``.
        target (str): ``'boxes'``: each class map is compared with :func:`class_heat`; or ``'image'``: its mean in the
            exponent over all positions is compared with whether the image has the class, and no box is used. Defaults
            to ``'boxes'``.
        convs (int): Number of 3x3 convolutions before the class maps. Defaults to 1.
        residual (bool): ``(1 + M) P`` if True, ``M P`` if False: then only what the map lets through reaches the heads.
            Defaults to True.
        prior (float): Value of the map before training, between 0 and 1. With a small one the detector starts nearly as
            it would without the branch; without ``residual`` 0.5 is better. Defaults to 0.01.
        loss_weight (float): Weight of the binary cross entropy, summed over classes and averaged over positions and
            levels. Defaults to 1.0.
        map_loss (dict, optional): Loss between the maps and those that people have corrected, such as
            ``dict(type='AttentionMapLoss')``; a corrected map is a field ``gt_attention_map`` (H, W) of a data sample,
            over the image without its padding. Defaults to None.
        norm_cfg (dict, optional): Normalisation of the convolutions. Defaults to groups of 8 channels.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to N(0, 0.01) for convolutions.

    Raises:
        ValueError: If an argument does not fit.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        levels: Sequence[int] = (0, 1, 2),
        target: str = 'boxes',
        convs: int = 1,
        residual: bool = True,
        prior: float = 0.01,
        loss_weight: float = 1.0,
        map_loss: dict | None = None,
        norm_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        if target not in ('boxes', 'image'):
            raise ValueError(f"target is 'boxes' or 'image', not {target!r}.")
        if not 0 < prior < 1:
            raise ValueError(f'prior is between 0 and 1, not {prior!r}.')
        if not levels or len(set(levels)) < len(levels):
            raise ValueError(f'levels are one or more different levels of the neck from 0 on, not {levels}.')
        last = dict(type='Normal', name='class_maps', std=0.01, bias=log(prior / (1 - prior)))
        super().__init__(init_cfg or dict(type='Normal', layer='Conv2d', std=0.01, override=last))
        self.num_classes, self.levels, self.target = num_classes, list(levels), target
        self.residual, self.loss_weight = residual, loss_weight
        norm_cfg = norm_cfg or dict(type='GN', num_groups=max(1, in_channels // 8))
        self.convs = nn.Sequential(
            *(ConvModule(in_channels, in_channels, 3, padding=1, norm_cfg=norm_cfg) for _ in range(convs))
        )
        self.class_maps = nn.Conv2d(in_channels, num_classes, 1)
        self.maps = nn.ModuleList(AttentionMap('spatial') for _ in levels)
        self.map_loss = None if map_loss is None else MODELS.build(map_loss)

    def forward(self, feats: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], list[BranchOutput]]:
        """Attend.

        Args:
            feats (Sequence[Tensor]): Levels (N, C, h, w) of the neck.

        Returns:
            Tuple[Tuple[Tensor, ...], List[BranchOutput]]: All levels, those of ``levels`` weighted; and what the branch
            says of these.

        Raises:
            ValueError: If the neck has no such level.
        """
        if max(self.levels) >= len(feats):
            raise ValueError(f'The neck has {len(feats)} levels; the branch asks for {self.levels}, counted from 0.')
        attended, outputs = list(feats), []
        for tap, level in zip(self.maps, self.levels):
            classes = self.class_maps(self.convs(feats[level]))
            attention = tap(classes.sigmoid().amax(1, keepdim=True))
            attended[level] = (self.residual + attention) * feats[level]
            outputs.append(BranchOutput(classes, attention))
        return tuple(attended), outputs

    def loss(self, outputs: Sequence[BranchOutput], data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
        """Losses of the branch.

        Args:
            outputs (Sequence[BranchOutput]): From :meth:`forward`.
            data_samples (Sequence[BaseDataElement]): With ``gt_instances`` (``bboxes`` and ``labels``) and
                ``batch_input_shape``.

        Returns:
            Dict[str, Tensor]: ``loss_branch`` and, if there is one, ``loss_map``, means over the levels.
        """
        per_level = [self._class_loss(level.classes, data_samples) for level in outputs]
        losses = dict(loss_branch=self.loss_weight * sum(per_level) / len(outputs))
        if self.map_loss is not None:
            padded = [_over_the_input(sample) for sample in data_samples]
            losses['loss_map'] = sum(self.map_loss(level.attention, padded) for level in outputs) / len(outputs)
        return losses

    def _class_loss(self, classes: Tensor, data_samples: Sequence[BaseDataElement]) -> Tensor:
        """Binary cross entropy, summed over classes, averaged over images and positions."""
        objects = [sample.gt_instances for sample in data_samples]
        if self.target == 'image':
            places = log(classes[0, 0].numel())
            scores = classes.flatten(2).logsumexp(2) - places  # N, K
            present = torch.zeros_like(scores)
            for row, one in zip(present, objects):
                row.scatter_(0, one.labels, 1)
            return F.binary_cross_entropy_with_logits(scores, present) * self.num_classes
        size = classes.shape[2:]
        heat = [
            class_heat(one.bboxes.to(classes), one.labels, self.num_classes, sample.batch_input_shape, size)
            for one, sample in zip(objects, data_samples)
        ]
        return F.binary_cross_entropy_with_logits(classes, torch.stack(heat)) * self.num_classes


def _over_the_input(sample: BaseDataElement) -> BaseDataElement:
    """The corrected map of a sample, if there is one, with zeros where the batch padded the image."""
    if 'gt_attention_map' not in sample:
        return BaseDataElement()
    corrected = torch.as_tensor(sample.gt_attention_map)
    bottom, right = (whole - part for whole, part in zip(sample.batch_input_shape, corrected.shape[-2:]))
    padded = BaseDataElement()
    padded.set_field(F.pad(corrected, (0, right, 0, bottom)), 'gt_attention_map')
    return padded


class _WithBranch:
    """What a detector's class gets in addition."""

    def __init__(self, branch: dict, **kwargs) -> None:
        super().__init__(**kwargs)
        self.branch = MODELS.build({'type': 'DetectionBranch', **branch})
        self._outputs = None  # during a loss, by the branch

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """The levels of the neck, weighted by the maps of the branch."""
        feats, outputs = self.branch(super().extract_feat(batch_inputs))
        if self._outputs is not None:
            self._outputs.append(outputs)
        return feats

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
        """The detector's losses and those of the branch."""
        self._outputs = []
        losses = super().loss(batch_inputs, batch_data_samples)
        (outputs,), self._outputs = self._outputs, None
        return losses | self.branch.loss(outputs, batch_data_samples)


@cache
def _branched(kind: type) -> type:
    """A detector's class with the branch."""
    return type(f'AttentionBranch{kind.__name__}', (_WithBranch, kind), dict(__module__=__name__))


@MODELS.register_module()
def AttentionBranchDetector(detector: str, branch: dict, **kwargs) -> nn.Module:  # noqa: N802  as a class in configs
    """A detector of MMDetection with an attention branch behind its neck.

    In the config of any detector, two entries change; what else it says stays. A checkpoint of the plain detector fits,
    by ``load_from``: only ``branch.*`` is new.

    Example:
        >>> model = dict(
        ...     type='AttentionBranchDetector',
        ...     detector='FasterRCNN',  # what `type` was
        ...     branch=dict(num_classes=80, in_channels=256),
        ... )

    Args:
        detector (str): Type of the detector.
        branch (dict): Config of the branch. Its ``type`` defaults to :class:`DetectionBranch`.
        **kwargs: Arguments of the detector.

    Returns:
        nn.Module: An instance of a subclass of the detector's class.

    Raises:
        KeyError: If there is no such detector.
    """
    with MODELS.switch_scope_and_registry(None) as registry:  # that of the config
        kind = registry.get(detector)
    if kind is None:
        raise KeyError(
            f'There is no detector {detector!r}: give the type of one of MMDetection, and set default_scope to mmdet.'
        )
    return _branched(kind)(branch=branch, **kwargs)
