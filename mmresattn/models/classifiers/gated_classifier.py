"""A classifier that sees only the pixels which a map leaves in sight.

A loss on attention maps changes the map, but the network keeps other ways to what was erased: (1 + M) * g lets it pass.
Here pixels that a small network takes for something people erased are replaced before the classifier sees them.
"""

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..backbones.cut import FirstStages, build_backbone
from ..layers import AttentionMap
from ..losses import corrected_areas
from .wrapped_classifier import WrappedClassifier


@MODELS.register_module()
class ErasedAreaMasker(nn.Module):
    """Finds in other images what people erased in some.

    Frozen first stages of a backbone, whose features at strides 2 to 8 know colours, edges and textures, and three
    convolutions at stride 4, which learn from few corrections. So an area may be as small as a few pixels.

    Args:
        backbone (dict): Config of the backbone.
        channels (int): Channels of the convolutions. Defaults to 32.
        steps (int): Steps of training. Defaults to 300.
        batch_size (int): Images in a step. Defaults to 16.
        lr (float): Largest learning rate. Defaults to 3e-3.
    """

    added = True  # to a plain classifier

    def __init__(
        self, backbone: dict, channels: int = 32, steps: int = 300, batch_size: int = 16, lr: float = 3e-3
    ) -> None:
        super().__init__()
        self.extractor = FirstStages(build_backbone(backbone))
        layers, width = [], sum(self.extractor.out_channels)
        for kernel in (1, 3, 3):
            conv = nn.Conv2d(width, channels, kernel, padding=kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
            width = channels
        self.head = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))
        self.steps, self.batch_size, self.lr = steps, batch_size, lr
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> 'ErasedAreaMasker':
        """Stay in evaluation mode: only :meth:`fit` trains."""
        return super().train(False)

    def features(self, images: Tensor) -> Tensor:
        """Features of images (N, C, H, W) at stride 4: (N, D, H / 4, W / 4)."""
        features = self.extractor(images)
        size = features[min(1, len(features) - 1)].shape[2:]
        return torch.cat([_resized(feature, size) for feature in features], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 1, H, W) that a pixel belongs to what people erased."""
        return _resized(self.head(self.features(images)), images.shape[2:])

    def fit(self, images: Tensor, erased: Tensor, added: Tensor, seed: int = 0) -> float:
        """Learn from corrections, by binary cross-entropy.

        Erased pixels are few and weigh more, by the square root of how few. What was added is never to be erased and
        weighs as much.

        Args:
            images (Tensor): Corrected images (M, C, H, W), normalised.
            erased (Tensor): What was erased in each (M, 1, H, W), from 0 to 1.
            added (Tensor): What was added (M, 1, H, W), from 0 to 1.
            seed (int): Draws the batches. Defaults to 0.

        Returns:
            float: The loss in the last tenth of the steps.
        """
        with torch.no_grad():
            features = torch.cat([self.features(batch) for batch in images.split(self.batch_size)])
        erased = erased * (1 - added)
        share = erased.mean().clamp(min=1e-3)
        weight = ((1 - share) / share).sqrt().clamp(1, 5)
        generator = torch.Generator().manual_seed(seed)
        for module in self.head:
            if hasattr(module, 'reset_parameters'):
                module.reset_parameters()
        self.head.requires_grad_(True)
        self.head.train()
        optimizer = torch.optim.AdamW(self.head.parameters(), self.lr, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=self.steps)
        losses = []
        with torch.enable_grad():
            for _ in range(self.steps):
                chosen = torch.randint(len(images), (min(self.batch_size, len(images)),), generator=generator)
                logits = _resized(self.head(features[chosen]), images.shape[2:])
                target, kept = erased[chosen], added[chosen]
                weights = 1 + (weight - 1) * torch.maximum(target, kept)
                loss = F.binary_cross_entropy_with_logits(logits, target, weights)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
        self.head.requires_grad_(False)
        self.eval()
        last = losses[-max(1, self.steps // 10) :]
        return sum(last) / len(last)


@MODELS.register_module()
class GatedClassifier(WrappedClassifier):
    """Any classifier of MMPretrain behind a gate.

    The masker learns from corrections (``GateHook``) before the classifier's training goes on, and is frozen then. What
    it finds is replaced by noise: in training drawn anew each time, so that nothing can be read from it; in evaluation
    a fixed pattern, so that answers repeat. ``shown`` is the tap of what the classifier sees, (N, 1, H, W): 1 where it
    sees the pixel, 0 where it sees noise. Where the masker finds nothing, the classifier sees the image as it is.

    A checkpoint of the plain classifier fits, by ``load_from``; it also fills the first stages of the masker.

    Args:
        classifier (dict): Config of the classifier.
        masker (dict): Config of the masker, whose ``backbone`` is that of the classifier. Defaults to
            ``dict(type='ErasedAreaMasker')``.
        threshold (float): Probability from which on a pixel is hidden, between 0 and 1. Defaults to 0.5.
        **kwargs: See :class:`WrappedClassifier`.
    """

    def __init__(
        self, classifier: dict, masker: dict = dict(type='ErasedAreaMasker'), threshold: float = 0.5, **kwargs
    ) -> None:
        super().__init__(classifier, **kwargs)
        if not 0 < threshold < 1:
            raise ValueError(f'threshold is between 0 and 1, not {threshold!r}.')
        backbone = {key: value for key, value in classifier['backbone'].items() if key != 'init_cfg'}
        self.masker = MODELS.build({'backbone': backbone, **masker})
        self.threshold = threshold
        self.shown = AttentionMap('spatial')
        mean, std = (getattr(self.data_preprocessor, key, None) for key in ('mean', 'std'))
        black, white = (torch.tensor(level).float().view(1, 1, 1) for level in (0, 255))
        if mean is not None:
            black, white = ((level - mean) / std for level in (black, white))
        pattern = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        self.register_buffer('pattern', black + pattern * (white - black), persistent=False)
        self.register_buffer('black', black, persistent=False)
        self.register_buffer('white', white, persistent=False)

    def prepare(self, inputs: Tensor) -> Tensor:
        """Images (N, C, H, W) with noise in the place of what the masker finds."""
        with torch.no_grad():
            shown = (self.masker(inputs).sigmoid() < self.threshold).to(inputs)
        shown = self.shown(shown)  # N, 1, H, W
        return inputs * shown + self.noise(inputs) * (1 - shown)

    def noise(self, like: Tensor) -> Tensor:
        """Pixels, uniform from black to white."""
        if self.training:
            return self.black + torch.rand_like(like) * (self.white - self.black)
        rows, columns = (torch.arange(side, device=like.device) % 64 for side in like.shape[2:])
        return self.pattern[:, :, rows[:, None], columns].to(like)

    def fit(self, images: Tensor, data_samples: list[DataSample], seed: int = 0) -> float:
        """Let the masker learn from corrected images (M, C, H, W), normalised; see :class:`ErasedAreaMasker`."""
        indices, erased, added = corrected_areas(data_samples, images)
        return self.masker.fit(images[indices], erased, added, seed)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Fill the masker's first stages from a plain checkpoint, too."""
        plain = {
            f'{prefix}masker.extractor.{name}': state_dict[f'{prefix}{place}.{name}']
            for name in self.masker.extractor.state_dict()
            for place in ('backbone', 'head.stage')  # the last stage of an Attention Branch Network is in its head
            if f'{prefix}{place}.{name}' in state_dict
        }
        super()._load_from_state_dict(state_dict, prefix, *args)
        state_dict.update(plain)


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Features at another size: means of areas to a smaller one, bilinear to a larger one."""
    return F.interpolate(x, size, mode='area' if x.shape[2] > size[0] else 'bilinear')
