"""Bayesian Attention Branch Network: Monte-Carlo dropout in both branches; the more confident one makes the prediction.

After "Improving reliability of attention branch network by introducing uncertainty", ICPR 2020. Each pass drops other
features after the blocks of both branches, and the predictions are averaged over the passes. The place of dropout
within a block and the depth of the published network are not known.
"""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from .attention_branch_network import AttentionBranchNetwork


class ThinnedNetworks:
    """Dropout for several passes at once, whose random draws depend only on a seed and the number of the pass.

    All images of a pass go through the same thinned network, as if its weights were a sample. So a prediction depends
    neither on the other images of its batch, nor on how many passes run at once, nor on earlier draws.

    Args:
        drop_rate (float): Probability of each feature to be set to 0; the others are divided by the rest.
        seed (int): The seed, at least 0.
        passes (Sequence[int]): Numbers of the passes.
        device (torch.device): Device of the features. Devices of other types draw other numbers.
    """

    def __init__(self, drop_rate: float, seed: int, passes: Sequence[int], device: torch.device) -> None:
        self.drop_rate = drop_rate
        self.generators = [
            torch.Generator(device).manual_seed(int(np.random.SeedSequence((seed, i)).generate_state(1)[0]))
            for i in passes
        ]

    def __len__(self) -> int:
        return len(self.generators)

    def __call__(self, x: Tensor) -> Tensor:
        """Drop single features of (passes * N, C, H, W), one pass after the other."""
        kept = torch.stack([torch.rand(x.shape[1:], generator=g, device=x.device) for g in self.generators])
        kept = (kept >= self.drop_rate)[:, None].to(x) / (1 - self.drop_rate)  # passes, 1, C, H, W
        return (x.view(len(self), -1, *x.shape[1:]) * kept).view_as(x)


def more_confident_branch(perception: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """Which branch makes the prediction, by the probabilities (N, K) of both: the one of lower entropy.

    Returns:
        tuple[Tensor]: Whether the attention branch predicts (N,), and the entropies (2, N) of the perception and of the
        attention branch, in nats from 0 to log(K).
    """
    entropies = torch.special.entr(torch.stack((perception, attention))).sum(2)
    return entropies[1] < entropies[0], entropies


@MODELS.register_module()
class BayesianAttentionBranchNetwork(AttentionBranchNetwork):
    """An Attention Branch Network with dropout in both branches, in training and in prediction.

    The feature extractor runs once; its features go ``passes`` times through both branches, the perception branch
    always after the map of the same pass. Normalisations use their running statistics. A branch's prediction is the
    mean of its softmax over the passes; the branch with the lower entropy makes the network's prediction.

    ``mode='tensor'`` is the network without dropout, and its checkpoints are those of the plain one.

    Args:
        *args: See :class:`AttentionBranchNetwork`.
        drop_rate (float): Probability of each feature to be dropped, in [0, 1). Defaults to 0.3.
        passes (int): Number of Monte-Carlo passes, at least 1. Defaults to 50.
        passes_at_once (int): How many of them form one batch: more are faster for few images and need more memory.
            The result is the same. Defaults to 1.
        seed (int): Seed of the passes, at least 0. Defaults to 0.
        **kwargs: See :class:`AttentionBranchNetwork`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self, *args, drop_rate: float = 0.3, passes: int = 50, passes_at_once: int = 1, seed: int = 0, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        if not 0 <= drop_rate < 1 or passes < 1 or passes_at_once < 1:
            raise ValueError(
                'drop_rate must be in [0, 1), passes and passes_at_once at least 1; got '
                f'{drop_rate}, {passes}, {passes_at_once}.'
            )
        self.drop_rate = drop_rate
        self.passes = passes
        self.passes_at_once = passes_at_once
        self.seed = seed
        self.neck.stage.drop = nn.Dropout(drop_rate)
        self.head.stage.drop = nn.Dropout(drop_rate)

    def sample(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean probabilities (N, K) of the perception and of the attention branch, over all passes."""
        g = self.backbone(inputs)[-1]  # once for all passes
        total = 0
        for i in range(0, self.passes, self.passes_at_once):
            passes = range(self.passes)[i : i + self.passes_at_once]
            thinned = ThinnedNetworks(self.drop_rate, self.seed, passes, g.device)
            feats = self.neck((g.repeat(len(thinned), 1, 1, 1),), thinned)  # passes * N, C, H, W
            attention, perception = feats[1], self.head.fc(self.head.pre_logits(feats, thinned))  # passes * N, K
            scores = torch.stack((perception, attention)).view(2, len(thinned), len(g), -1)
            total = total + scores.softmax(3).sum(1)  # 2, N, K
        perception, attention = total / self.passes
        return perception, attention

    def predict(self, inputs: Tensor, data_samples: list[DataSample] | None = None, **kwargs) -> list[DataSample]:
        """Predictions of the more confident branch.

        Returns:
            List[DataSample]: ``pred_score`` (K,), ``pred_label`` (1,) and ``entropy`` () of the prediction, in nats;
            ``answered_by``, ``'perception_branch'`` or ``'attention_branch'``; and under each of these names a sample
            with score, label and entropy of that branch.
        """
        branches = self.sample(inputs)
        by_attention, entropies = more_confident_branch(*branches)
        samples = [DataSample() for _ in inputs] if data_samples is None else data_samples
        names = ('perception_branch', 'attention_branch')
        for i, (sample, attends) in enumerate(zip(samples, by_attention.tolist())):
            for name, scores, entropy in zip(names, branches, entropies):
                branch = DataSample() if 'gt_label' not in sample else DataSample(gt_label=sample.gt_label)
                branch.set_pred_score(scores[i]).set_pred_label(scores[i].argmax(keepdim=True))
                branch.entropy = entropy[i]
                branch.eval_mask = True  # required by MultiTasksMetric
                sample.set_field(branch, name)
            answer = sample.get(names[attends])
            sample.set_pred_score(answer.pred_score).set_pred_label(answer.pred_label)
            sample.entropy = answer.entropy
            sample.answered_by = names[attends]
        return samples
