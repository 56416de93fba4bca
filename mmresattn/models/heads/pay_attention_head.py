"""Heads of Learn To Pay Attention (Jetley et al., ICLR 2018, arXiv:1804.02391, section 3.3)."""

from collections.abc import Sequence

import torch
from mmengine.registry import MODELS
from mmpretrain.models.heads import ClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn


@MODELS.register_module()
class PayAttentionHead(ClsHead):
    """Classifier of attended features; by default BN, ReLU and dropout on those of each level come first.

    - ``'concat'``: the levels are joined, one linear layer gives the scores.
    - ``'indep'``: every level has a linear layer; the scores are the sum over the levels of log-probabilities, and the
      loss is the negative of that sum: the sum of the levels' cross-entropies. So it is in the authors' file for two
      levels (``2_level_atten_1global_pred-ensemble``); the paper speaks of a mean of probabilities.
    - ``'sum'``: every level has a linear layer; the scores are the sum of their outputs, and the loss is the
      cross-entropy of this sum. So it is in the authors' file for three levels
      (``3_level_atten_1global_pred-ensemble``). Predictions are those of ``'indep'``, the loss is never larger.

    Features are attended vectors (N, C), one for each level. On the vector of a network without attention this is the
    classifier of the authors' VGG.

    Args:
        num_classes (int): Number of classes, at least 1.
        in_channels (Sequence[int]): Channels of each level, ``out_channels`` of the neck.
        combine (str): ``'concat'``, ``'indep'`` or ``'sum'``. Defaults to ``'concat'``.
        dropout (float): Dropout before the linear layers, from 0 to below 1. Defaults to 0.5.
        norm (bool): Whether BN, ReLU and dropout come before the linear layers, as in the authors' network. Defaults to
            True.
        **kwargs: ``loss``, ``topk``, ``cal_acc`` and ``init_cfg`` of MMPretrain's ``ClsHead``. With ``'indep'`` the
            loss is that of each level, summed.

    Raises:
        ValueError: If an argument does not fit.
    """

    class_weights = ('fc',)
    added = True  # to a plain classifier

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        combine: str = 'concat',
        dropout: float = 0.5,
        norm: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if combine not in ('concat', 'indep', 'sum'):
            raise ValueError(f"combine is 'concat', 'indep' or 'sum', not {combine!r}.")
        if num_classes < 1 or not in_channels:
            raise ValueError(
                f'Expected one class or more and the channels of one level or more, got num_classes={num_classes} and '
                f'in_channels={in_channels}.'
            )
        self.num_classes = num_classes
        self.in_channels = list(in_channels)
        self.combine = combine
        self.activate = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(channels), nn.ReLU(inplace=True), nn.Dropout(dropout))
            if norm
            else nn.Identity()
            for channels in in_channels
        )
        widths = [sum(in_channels)] if combine == 'concat' else in_channels
        self.fc = nn.ModuleList(nn.Linear(width, num_classes) for width in widths)

    def _activations(self, feats: Sequence[Tensor]) -> list[Tensor]:
        shapes = [tuple(x.shape) for x in feats]
        if [shape[1:] for shape in shapes] != [(channels,) for channels in self.in_channels]:
            raise ValueError(
                f'Expected vectors (N, C) of {self.in_channels} channels, one for each level, got {shapes}. Set '
                'in_channels of the head to out_channels of the neck.'
            )
        return [activate(x) for activate, x in zip(self.activate, feats)]

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """What the linear layers see, of all levels: the features that the authors hand to other classifiers.

        Returns:
            Tensor: Activations (N, sum of in_channels).
        """
        return torch.cat(self._activations(feats), 1)

    def _logits(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Outputs of the linear layers, each (N, num_classes): one in all, or one a level."""
        inputs = [self.pre_logits(feats)] if self.combine == 'concat' else self._activations(feats)
        return [fc(x) for fc, x in zip(self.fc, inputs)]

    def _scores(self, logits: Sequence[Tensor]) -> Tensor:
        return sum(x.log_softmax(1) if self.combine == 'indep' else x for x in logits)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Scores of the classes.

        Returns:
            Tensor: Scores (N, num_classes): logits, or for ``'indep'`` sums of log-probabilities, at most 0.

        Raises:
            ValueError: If the features are not those that ``in_channels`` announces.
        """
        return self._scores(self._logits(feats))

    def loss(self, feats: Sequence[Tensor], data_samples: list[DataSample], **kwargs) -> dict[str, Tensor]:
        """The loss, and with ``cal_acc`` the accuracy.

        Args:
            feats (Sequence[Tensor]): Attended features.
            data_samples (List[DataSample]): Labels, or scores after mixing augmentations.
            **kwargs: For the loss module.

        Returns:
            Dict[str, Tensor]: ``loss`` and, if wanted, ``accuracy_top-k``.
        """
        logits = self._logits(feats)
        losses = self._get_loss(self._scores(logits), data_samples, **kwargs)
        if self.combine == 'indep':  # a cross-entropy of the sum would normalise it once more
            losses['loss'] = sum(self._get_loss(x, data_samples, **kwargs)['loss'] for x in logits)
        return losses
