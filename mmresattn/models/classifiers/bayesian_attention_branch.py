"""Bayesian Attention Branch Network: Monte-Carlo dropout in both branches, of which the surer one answers.

After "Improving reliability of attention branch network by introducing uncertainty", ICPR 2020. Each pass drops other
features behind the residual blocks of both branches, and the predictions are averaged over the passes. Where in a block
the published network drops, and how deep it is, is not known.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..backbones.last_stage import LastStage


class ThinnedNetworks:
    """Dropout of some passes at once, each with draws of its own that its number and a seed decide.

    All images of a pass go through the same thinned network, as if its weights were a sample. So a prediction depends
    neither on the other images of its batch, nor on how many passes run at once, nor on what was drawn before.

    Args:
        seed (int): The seed, at least 0.
        passes (Sequence[int]): Numbers of the passes.
        device (torch.device): Where the features are; devices of other kinds draw other numbers.
    """

    def __init__(self, seed: int, passes: Sequence[int], device: torch.device) -> None:
        self.generators = [
            torch.Generator(device).manual_seed(int(np.random.SeedSequence((seed, i)).generate_state(1)[0]))
            for i in passes
        ]

    def __len__(self) -> int:
        return len(self.generators)

    def __call__(self, x: Tensor, drop_rate: float) -> Tensor:
        """Drop features, each by itself.

        Args:
            x (Tensor): Features (passes * N, C, H, W), one pass after the other.
            drop_rate (float): How likely each is to be set to 0. What is left is divided by the rest.

        Returns:
            Tensor: The same shape.
        """
        kept = torch.stack([torch.rand(x.shape[1:], generator=g, device=x.device) for g in self.generators])
        kept = (kept >= drop_rate)[:, None].to(x) / (1 - drop_rate)  # passes, 1, C, H, W
        return (x.view(len(self), -1, *x.shape[1:]) * kept).view_as(x)


class DropoutStage(LastStage):
    """The last stage of a backbone with dropout of single features behind each of its blocks.

    In a ResNet that is behind the last ReLU of each block, in a pre-activation network behind each sum. The names of
    its weights are those of :class:`LastStage`.

    Args:
        stage (LastStage): The stage, whose modules it takes over.
        drop_rate (float): Rate, in [0, 1).

    Raises:
        ValueError: If the stage is no sequence of blocks.
    """

    def __init__(self, stage: LastStage, drop_rate: float) -> None:
        super(LastStage, self).__init__()  # nothing to cut: that is done
        self.backbone = stage.backbone
        self.out_channels = stage.out_channels
        for name, module in stage.named_children():
            self.add_module(name, module)
        blocks = next(self.children())
        if not isinstance(blocks, nn.Sequential):
            raise ValueError(
                f'The last stage of the {self.backbone["type"]} is a {type(blocks).__name__}; dropout behind its '
                'blocks needs a sequence of them, as in ResNet and its relatives, CIFARWideResNet or '
                'ResidualAttentionNet.'
            )
        self.drop_rate = drop_rate

    def forward(self, x: Tensor, thinned: ThinnedNetworks | None = None) -> Tensor:
        """Output of the stage.

        Args:
            x (Tensor): Output of the stage before last (N, C, H, W), or of as many passes (passes * N, C, H, W).
            thinned (ThinnedNetworks, optional): The passes. Defaults to None: dropout in training mode alone, by the
                random state of PyTorch.

        Returns:
            Tensor: (N, out_channels, H / stride, W / stride).
        """
        blocks, *closing = self.children()
        for block in blocks:
            x = block(x)
            if thinned is None:
                x = F.dropout(x, self.drop_rate, self.training)
            else:
                x = thinned(x, self.drop_rate)
        for module in closing:
            x = module(x)
        return x


def surer_branch(perception: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """Which branch answers: the attention branch where its entropy is lower, the perception branch else.

    Args:
        perception (Tensor): Probabilities (N, K).
        attention (Tensor): Probabilities (N, K).

    Returns:
        tuple[Tensor]: Whether the attention branch answers (N,), and the entropies (2, N) of the perception and of the
        attention branch, in nats from 0 to log(K).
    """
    entropies = torch.special.entr(torch.stack((perception, attention))).sum(2)
    return entropies[1] < entropies[0], entropies


@MODELS.register_module()
class BayesianAttentionBranchNetwork(ImageClassifier):
    """An Attention Branch Network whose branches drop features, in training and in prediction.

    The feature extractor runs once; its features go ``passes`` times through both branches, the perception branch
    always behind the map of the same pass. Normalisations use their running statistics. A branch's prediction is the
    mean of its softmax over the passes; the answer is that of the branch with the lower entropy.

    ``mode='tensor'`` is the network without dropout, and its checkpoints are those of the plain one.

    Example:
        >>> network = attention_branch_network(dict(type='CIFARResNet', depth=20), num_classes=100)
        >>> model = MODELS.build(network | dict(type='BayesianAttentionBranchNetwork', drop_rate=0.3))
        >>> model.eval().predict(images)[0].entropy

    Args:
        *args: See MMPretrain's ``ImageClassifier``; backbone, neck and head are those of
            :func:`attention_branch_network`.
        drop_rate (float): How likely each feature is to be dropped, in [0, 1). Defaults to 0.3.
        passes (int): Number of Monte-Carlo passes, at least 1. Defaults to 50.
        passes_at_once (int): How many of them make up one batch: more are faster for few images, and need as many
            times the memory. The result is the same. Defaults to 1.
        seed (int): Decides what the passes drop, at least 0. Defaults to 0.
        **kwargs: See ``ImageClassifier``.

    Raises:
        ValueError: If an argument is out of its range, or the backbone's last stage is no sequence of blocks.
    """

    def __init__(
        self, *args, drop_rate: float = 0.3, passes: int = 50, passes_at_once: int = 1, seed: int = 0, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        if not 0 <= drop_rate < 1:
            raise ValueError(f'drop_rate is in [0, 1), not {drop_rate}.')
        if passes < 1 or passes_at_once < 1 or seed < 0:
            raise ValueError(
                f'passes and passes_at_once are at least 1 and seed at least 0; got {passes}, {passes_at_once}, {seed}.'
            )
        self.passes = passes
        self.passes_at_once = passes_at_once
        self.seed = seed
        self.neck.stage = DropoutStage(self.neck.stage, drop_rate)
        self.head.stage = DropoutStage(self.head.stage, drop_rate)

    def sample(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean probabilities of both branches over the Monte-Carlo passes.

        Args:
            inputs (Tensor): Images (N, C, H, W).

        Returns:
            tuple[Tensor]: Of the perception and of the attention branch, (N, K) each.
        """
        g = self.backbone(inputs)[-1]  # once for all passes
        total = 0
        for i in range(0, self.passes, self.passes_at_once):
            thinned = ThinnedNetworks(self.seed, range(self.passes)[i : i + self.passes_at_once], g.device)
            x = g.repeat(len(thinned), 1, 1, 1)  # passes * N, C, H, W
            attended, attention, _ = self.neck.attend(x, self.neck.stage(x, thinned), len(thinned))
            perception = self.head.fc(self.head.stage(attended, thinned).mean((2, 3)))  # passes * N, K
            scores = torch.stack((perception, attention)).view(2, len(thinned), len(g), -1)
            total = total + scores.softmax(3).sum(1)  # 2, N, K
        perception, attention = total / self.passes
        return perception, attention

    def predict(self, inputs: Tensor, data_samples: list[DataSample] | None = None, **kwargs) -> list[DataSample]:
        """Predictions of the surer branch.

        Args:
            inputs (Tensor): Images (N, C, H, W).
            data_samples (list[DataSample], optional): Samples to write into.
            **kwargs: Not used.

        Returns:
            List[DataSample]: ``pred_score`` (K,), ``pred_label`` (1,) and ``entropy`` () of the answer, in nats;
            ``answered_by``, ``'perception_branch'`` or ``'attention_branch'``; and under each of these names a sample
            with score, label and entropy of that branch.
        """
        branches = self.sample(inputs)
        by_attention, entropies = surer_branch(*branches)
        samples = [DataSample() for _ in inputs] if data_samples is None else data_samples
        names = ('perception_branch', 'attention_branch')
        for i, (sample, surer) in enumerate(zip(samples, by_attention.tolist())):
            for name, scores, entropy in zip(names, branches, entropies):
                branch = DataSample() if 'gt_label' not in sample else DataSample(gt_label=sample.gt_label)
                branch.set_pred_score(scores[i]).set_pred_label(scores[i].argmax(keepdim=True))
                branch.entropy = entropy[i]
                branch.eval_mask = True  # MultiTasksMetric asks for it
                sample.set_field(branch, name)
            answer = sample.get(names[surer])
            sample.set_pred_score(answer.pred_score).set_pred_label(answer.pred_label)
            sample.entropy = answer.entropy
            sample.answered_by = names[surer]
        return samples
