"""Show, Attend and Tell (Xu et al., ICML 2015, arXiv:1502.03044): a caption, and for each word where it looks.

The paper's figure from left to right::

                                 h_{t-1} ------------------------+
                                    |                            |
                                    v                            v
    image -> backbone -> a_1..a_L -> attention -> alpha_t -> z_t -> beta_t z_t -+-> LSTM -> h_t -+-> word y_t
             (frozen)                             (map)      |                  |    ^           |
                                                    soft: sum_i alpha_ti a_i    +----|-----------+
                                                    hard: a_i, i ~ alpha_t           E y_{t-1}

:class:`AttendTellDecoder` is one step of everything behind the backbone; :class:`ShowAttendTell` runs it over a known
caption (loss) or searches for one (greedy or beam). Details that the paper leaves open are those of the authors' code,
kelvinxu/arctic-captions.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..layers import AttentionMap, class_heat
from .vocabulary import Vocabulary


class Step(NamedTuple):
    """What the decoder gives for one word of N captions."""

    logits: Tensor  # N, words
    alpha: Tensor  # N, L: the attention
    chosen: Tensor  # N, L: with hard attention in training one location, otherwise alpha
    beta: Tensor  # N: the gate
    hidden: Tensor  # N, n
    cell: Tensor  # N, n


def _layers(inputs: int, outputs: int, count: int, activation: type[nn.Module], dropout: float = 0.0) -> nn.Sequential:
    """``count`` affine layers, with an activation and dropout behind each but the last."""
    layers = []
    for _ in range(count - 1):
        layers += [nn.Linear(inputs, inputs), activation(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class AttendTellDecoder(nn.Module):
    """From annotation vectors and the last word to the next word: sections 3.1.2 and 4 of the paper.

    Args:
        num_words (int): Size of the vocabulary, K.
        in_channels (int): Size of an annotation vector, D.
        embed_dims (int): Size of a word's embedding, m.
        hidden_dims (int): Size of the LSTM, n.
        attention_layers (int): Layers over the annotations within the attention model. Defaults to 1.
        init_layers (int): Layers from the mean annotation to the first states. Defaults to 1.
        gate (bool): Whether the context is multiplied by ``beta_t = sigmoid(f(h_{t-1}))``, section 4.2.1. Defaults to
            True.
        dropout (float): Probability. Defaults to 0.5.
        temperature (float): Factor of the scores before their softmax. Defaults to 1.
    """

    def __init__(
        self,
        num_words: int,
        in_channels: int,
        embed_dims: int,
        hidden_dims: int,
        attention_layers: int = 1,
        init_layers: int = 1,
        gate: bool = True,
        dropout: float = 0.5,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.first_hidden = _layers(in_channels, hidden_dims, init_layers, nn.ReLU, dropout)
        self.first_cell = nn.Linear(in_channels, hidden_dims)
        # The attention model f_att: tanh(W_a a_i + W_h h) . u
        self.annotation_layers = nn.Sequential(nn.Linear(in_channels, in_channels))
        for _ in range(attention_layers - 1):
            self.annotation_layers.extend([nn.Linear(in_channels, in_channels), nn.Tanh()])
        self.state_layer = nn.Linear(hidden_dims, in_channels, bias=False)
        self.score = nn.Linear(in_channels, 1)
        self.map = AttentionMap('spatial')
        self.gate = nn.Linear(hidden_dims, 1) if gate else None
        self.embedding = nn.Embedding(num_words, embed_dims)
        self.lstm = nn.LSTMCell(embed_dims + in_channels, hidden_dims)
        # The deep output: L_o tanh(E y_{t-1} + L_h h_t + L_z z_t)
        self.drop = nn.Dropout(dropout)
        self.hidden_output = nn.Linear(hidden_dims, embed_dims)
        self.context_output = nn.Linear(in_channels, embed_dims)
        self.word_output = nn.Linear(embed_dims, num_words)

    def start(self, annotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is computed once per image.

        Args:
            annotations (Tensor): (N, L, D).

        Returns:
            Tuple[Tensor, Tensor, Tensor]: The annotations' part of the attention model (N, L, D), and the first states
            of the LSTM, hidden and cell (N, n).
        """
        mean = self.first_hidden[:-1](annotations.mean(1))
        return self.annotation_layers(annotations), self.first_hidden[-1](mean).tanh(), self.first_cell(mean).tanh()

    def embed(self, words: Tensor) -> Tensor:
        """Embeddings (..., m) of words; zero for -1, which stands before the first word."""
        return self.embedding(words.clamp_min(0)) * (words >= 0).unsqueeze(-1)

    def forward(
        self,
        annotations: Tensor,
        projected: Tensor,
        words: Tensor,
        hidden: Tensor,
        cell: Tensor,
        grid: tuple[int, int],
        sample: bool = False,
    ) -> Step:
        """One word.

        Args:
            annotations (Tensor): (N, L, D).
            projected (Tensor): (N, L, D), from :meth:`start`.
            words (Tensor): Number of the last word of each caption (N,), -1 before the first.
            hidden (Tensor): State of the LSTM (N, n).
            cell (Tensor): State of the LSTM (N, n).
            grid (Tuple[int, int]): Height and width, whose product is L.
            sample (bool): Whether the context is one annotation, drawn by alpha (hard attention in training), instead
                of their expectation. Defaults to False.

        Returns:
            Step: Scores of the next word, attention and states.
        """
        scores = self.score((projected + self.state_layer(hidden)[:, None]).tanh())[..., 0]  # N, L
        alpha = (self.temperature * scores).softmax(1)
        alpha = self.map(alpha.unflatten(1, grid)[:, None]).flatten(1)  # through the tap as (N, 1, H, W)
        chosen = alpha
        if sample:
            chosen = F.one_hot(torch.multinomial(alpha.detach(), 1)[:, 0], alpha.shape[1]).to(alpha)
        context = torch.einsum('nl,nld->nd', chosen, annotations)
        beta = hidden.new_ones(len(hidden)) if self.gate is None else self.gate(hidden).sigmoid()[:, 0]
        context = beta[:, None] * context
        embedded = self.embed(words)
        hidden, cell = self.lstm(torch.cat([embedded, context], 1), (hidden, cell))
        output = self.hidden_output(self.drop(hidden)) + embedded + self.context_output(context)
        return Step(self.word_output(self.drop(output.tanh())), alpha, chosen, beta, hidden, cell)


class Captions(NamedTuple):
    """Captions of N images."""

    words: Tensor  # N, T: numbers of words; the end of the caption (0) and whatever follows is 0
    scores: Tensor  # N: log probability of the caption
    alphas: Tensor  # N, T, L: 0 where there is no word
    betas: Tensor  # N, T


def doubly_stochastic(alphas: Tensor, reduction: str = 'mean') -> Tensor:
    """The penalty ``sum_i (1 - sum_t alpha_ti)^2`` that asks to look everywhere once, equation 14.

    Args:
        alphas (Tensor): Attention of all words (N, T, L), 0 for words that are padding.
        reduction (str): Over locations and captions: ``'paper'`` sums over locations and takes the mean over captions,
            ``'code'`` sums over captions and takes the mean over locations as the authors' code does, ``'mean'`` takes
            the mean over both. Defaults to ``'mean'``.

    Returns:
        Tensor: A number.
    """
    squares = (1 - alphas.sum(1)).square()  # N, L
    over = dict(paper=squares.sum(1).mean(), code=squares.mean(1).sum(), mean=squares.mean())
    if reduction not in over:
        raise ValueError(f'reduction is one of {list(over)}, not {reduction!r}.')
    return over[reduction]


def hard_attention_loss(
    alphas: Tensor, chosen: Tensor, advantage: Tensor, reward_weight: float, entropy_weight: float
) -> Tensor:
    """A number whose gradient by the attention is that of the authors' code for hard attention, section 4.1.

    It is ``sum_nti reward_weight (cost_n - b) s_nti log alpha_nti + entropy_weight alpha_nti log alpha_nti``, in which
    costs and samples are constants: REINFORCE with a baseline, and the negative entropy.

    Args:
        alphas (Tensor): Attention of all words (N, T, L), 0 for words that are padding.
        chosen (Tensor): What was drawn from it (N, T, L).
        advantage (Tensor): Cost of each caption less the baseline (N,).
        reward_weight (float): lambda_r.
        entropy_weight (float): lambda_e.

    Returns:
        Tensor: A number.
    """
    log = alphas.clamp_min(torch.finfo(alphas.dtype).tiny).log()
    reward = (advantage.detach()[:, None, None] * chosen.detach() * log).sum()
    return reward_weight * reward + entropy_weight * (alphas * log).sum()


@MODELS.register_module()
class ShowAttendTell(BaseModel):
    """Captions with soft or hard attention, in the manner of MMPretrain's captioners.

    Example:
        >>> model = MODELS.build(dict(
        ...     type='ShowAttendTell', backbone=dict(type='VGG', depth=19, with_last_pool=False), in_channels=512,
        ...     vocabulary=['a', 'dog', 'cat']))
        >>> model(images, mode='predict')[0].pred_caption

    Args:
        backbone (dict): Config of any backbone; the last feature map that it gives is used.
        in_channels (int): Channels of that map.
        vocabulary (str | Sequence[str]): File of words, one a line, or the words; see :class:`Vocabulary`.
        num_words (int, optional): Size of the vocabulary with its two signs; a file is then read when it is first
            needed. Defaults to the size of the vocabulary.
        attention (str): ``'soft'`` (section 4.2) or ``'hard'`` (section 4.1). Defaults to ``'soft'``.
        embed_dims (int): Size of a word's embedding. Defaults to 512.
        hidden_dims (int): Size of the LSTM. Defaults to 1800, as in the authors' script for COCO.
        normalize (bool): Whether each annotation is brought to mean 0 and variance 1 over its channels, which makes
            backbones without a last activation fit. Not in the paper. Defaults to False.
        positions (float): If not 0, each annotation gets two more channels, its row and column from ``-positions`` to
            ``positions``: for captions that say where something is. Beside 112 channels of variance 1, places were
            learnt sooner with 5 than with 1. Not in the paper. Defaults to 0.
        freeze_backbone (bool): Whether the backbone stays as it is, as in the paper. Defaults to True.
        keep_features (bool): Whether a frozen backbone runs once for each training image, and its features are kept in
            memory by path and flip. Only for pipelines that draw nothing but flips. Defaults to False.
        penalty_weight (float): Of :func:`doubly_stochastic`, for soft attention. Defaults to 1.
        penalty_reduction (str): As there. Defaults to ``'mean'``.
        reward_weight (float): lambda_r of hard attention. Defaults to 0.1.
        entropy_weight (float): lambda_e of hard attention. Defaults to 0.002.
        sampling (float): In training with hard attention, probability that a batch is sampled; otherwise it takes the
            expectation, as soft attention does. Defaults to 0.5.
        baseline_momentum (float): How much of the baseline stays in each step. Defaults to 0.9.
        boxed_word (str, optional): A word whose map learns from the ``gt_bboxes`` of the images: ``loss_boxes`` is
            minus the logarithm of the attention within them. Not in the paper, where nobody says where to look.
            Defaults to None.
        boxes_weight (float): Of that loss. Defaults to 1.
        beam_size (int): Captions that are followed at once; 1 is the greedy search. Defaults to 3.
        max_words (int): After which a caption is cut off. Defaults to 30.
        data_preprocessor (dict, optional): Defaults to MMPretrain's ``MultiModalDataPreprocessor``.
        init_cfg (dict, optional): Initialisation. Defaults to PyTorch's.
        **decoder: Further arguments of :class:`AttendTellDecoder`.
    """

    def __init__(
        self,
        backbone: dict,
        in_channels: int,
        vocabulary: str | Sequence[str],
        num_words: int | None = None,
        attention: str = 'soft',
        embed_dims: int = 512,
        hidden_dims: int = 1800,
        normalize: bool = False,
        positions: float = 0.0,
        freeze_backbone: bool = True,
        keep_features: bool = False,
        penalty_weight: float = 1.0,
        penalty_reduction: str = 'mean',
        reward_weight: float = 0.1,
        entropy_weight: float = 0.002,
        sampling: float = 0.5,
        baseline_momentum: float = 0.9,
        boxed_word: str | None = None,
        boxes_weight: float = 1.0,
        beam_size: int = 3,
        max_words: int = 30,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
        **decoder,
    ) -> None:
        data_preprocessor = {'type': 'mmpretrain.MultiModalDataPreprocessor', **(data_preprocessor or {})}
        super().__init__(data_preprocessor, init_cfg)
        if attention not in ('soft', 'hard'):
            raise ValueError(f"attention is 'soft' or 'hard', not {attention!r}.")
        if keep_features and not freeze_backbone:
            raise ValueError('Features can be kept only of a frozen backbone: set freeze_backbone=True.')
        if beam_size < 1 or max_words < 1:
            raise ValueError(f'beam_size and max_words are at least 1, not {beam_size} and {max_words}.')
        self._words = vocabulary, num_words
        self.backbone = MODELS.build(backbone)
        self.decoder = AttendTellDecoder(
            num_words or len(self.vocabulary), in_channels + 2 * bool(positions), embed_dims, hidden_dims, **decoder
        )
        self.word_maps = AttentionMap('mixed')  # N, T, H, W: the map of each word, for those who look on
        self.attention, self.normalize, self.positions = attention, normalize, positions
        self.freeze_backbone = freeze_backbone
        self.features: dict | None = {} if keep_features else None
        self.penalty_weight, self.penalty_reduction = penalty_weight, penalty_reduction
        self.reward_weight, self.entropy_weight = reward_weight, entropy_weight
        self.sampling, self.baseline_momentum = sampling, baseline_momentum
        self.boxed_word, self.boxes_weight = boxed_word, boxes_weight
        self.beam_size, self.max_words = beam_size, max_words
        self.register_buffer('baseline', torch.zeros(()))  # of hard attention
        if freeze_backbone:
            self.backbone.requires_grad_(False)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words."""
        return Vocabulary(*self._words)

    def train(self, mode: bool = True) -> 'ShowAttendTell':
        """A frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self

    def record(self) -> dict:
        """What the metadata of a published checkpoint says beside its layers: the words, from number 2 on."""
        return dict(vocabulary=self.vocabulary.words[2:])

    def forward(
        self, images: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[DataSample]:
        """Run the network.

        Args:
            images (Tensor): Preprocessed images (N, 3, H, W).
            data_samples (List[DataSample], optional): With ``gt_caption``, a string, for ``'loss'`` and ``'tensor'``.
            mode (str): ``'loss'``; ``'predict'``; or ``'tensor'``, the scores (N, T, words) of the words that follow
                each word of the known captions, or without captions the feature map. Defaults to ``'tensor'``.

        Returns:
            Tensor | Dict[str, Tensor] | List[DataSample]: By mode.

        Raises:
            RuntimeError: If the mode is another one.
        """
        if mode == 'loss':
            return self.loss(images, data_samples)
        if mode == 'predict':
            return self.predict(images, data_samples)
        if mode != 'tensor':
            raise RuntimeError(f'Invalid mode "{mode}".')
        features = self.extract(images, data_samples)
        if data_samples is None:
            return features
        return self.tell(features, self.targets(data_samples, images.device)[0])[0]

    def extract(self, images: Tensor, data_samples: list[DataSample] | None = None) -> Tensor:
        """The feature map (N, D, H, W) of images, with positions if the model has them."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_backbone):
            if self.training and self.features is not None:
                keys = [(ds.get('img_path'), ds.get('flip_direction')) for ds in data_samples]
                new = [i for i, key in enumerate(keys) if key not in self.features]
                if new:
                    self.features |= zip((keys[i] for i in new), _last(self.backbone(images[new])).cpu())
                features = torch.stack([self.features[key] for key in keys]).to(images.device)
            else:
                features = _last(self.backbone(images))
        if self.normalize:
            features = F.layer_norm(features.movedim(1, -1), features.shape[1:2]).movedim(-1, 1)
        if self.positions:
            rows, columns = (torch.linspace(-1, 1, side, device=features.device) for side in features.shape[2:])
            grid = self.positions * torch.stack(torch.meshgrid(rows, columns, indexing='ij')).to(features)
            features = torch.cat([features, grid.expand(len(features), -1, -1, -1)], 1)
        return features

    def targets(self, data_samples: list[DataSample], device: torch.device) -> tuple[Tensor, Tensor]:
        """Numbers of the captions' words (N, T), and which of them are words or the end of a caption (N, T)."""
        numbers = [torch.tensor(self.vocabulary.encode(sample.gt_caption), device=device) for sample in data_samples]
        known = [torch.ones_like(sentence, dtype=torch.bool) for sentence in numbers]
        pad = nn.utils.rnn.pad_sequence
        return pad(numbers, batch_first=True), pad(known, batch_first=True)

    def tell(self, features: Tensor, words: Tensor, sample: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Run over known captions.

        Args:
            features (Tensor): Feature map (N, D, H, W).
            words (Tensor): Numbers of words (N, T).
            sample (bool): Whether locations are drawn. Defaults to False.

        Returns:
            Tuple[Tensor, Tensor, Tensor]: Scores of words (N, T, words), attention and what was drawn from it, both (N,
            T, L).
        """
        grid = tuple(features.shape[2:])
        annotations = features.flatten(2).transpose(1, 2)  # N, L, D
        projected, hidden, cell = self.decoder.start(annotations)
        before = F.pad(words, (1, -1), value=-1)  # the word before each word
        steps = []
        for last in before.unbind(1):
            steps.append(self.decoder(annotations, projected, last, hidden, cell, grid, sample))
            hidden, cell = steps[-1].hidden, steps[-1].cell
        logits, alphas, chosen = (torch.stack([step[i] for step in steps], 1) for i in range(3))
        alphas = self.word_maps(alphas.unflatten(2, grid)).flatten(2)
        return logits, alphas, chosen

    def loss(self, images: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """Losses of images with captions.

        Args:
            images (Tensor): Images (N, 3, H, W).
            data_samples (List[DataSample]): With ``gt_caption``, and with a boxed word ``gt_bboxes`` (N, 4).

        Returns:
            Dict[str, Tensor]: ``loss_words``, the negative log likelihood of a caption; ``loss_penalty`` of soft or
            ``loss_choice`` of hard attention (whose gradient means something, and not its value); perhaps
            ``loss_boxes``; and ``accuracy``, the share of words that are the likeliest ones.
        """
        words, known = self.targets(data_samples, images.device)
        hard = self.attention == 'hard'
        sample = hard and bool(torch.rand(()) < self.sampling)
        features = self.extract(images, data_samples)
        logits, alphas, chosen = self.tell(features, words, sample)
        costs = F.cross_entropy(logits.transpose(1, 2), words, reduction='none') * known  # N, T
        losses = dict(loss_words=costs.sum(1).mean())
        alphas = alphas * known[..., None]
        if hard:
            advantage = costs.sum(1) / known.sum(1) - self.baseline
            losses['loss_choice'] = hard_attention_loss(
                alphas, chosen * known[..., None], advantage, self.reward_weight, self.entropy_weight
            )
            if self.training:
                mean = costs.detach().sum() / known.sum()
                self.baseline.lerp_(mean.to(self.baseline), 1 - self.baseline_momentum)
        else:
            losses['loss_penalty'] = self.penalty_weight * doubly_stochastic(alphas, self.penalty_reduction)
        if self.boxed_word is not None:
            boxes = [torch.as_tensor(sample.gt_bboxes).to(alphas) for sample in data_samples]
            pixels, grid = images.shape[2:], features.shape[2:]
            shares = [class_heat(each, each.new_zeros(len(each), dtype=torch.long), 1, pixels, grid) for each in boxes]
            losses['loss_boxes'] = self.boxes_weight * self.cost_of_boxes(alphas, words, torch.stack(shares).flatten(1))
        losses['accuracy'] = ((logits.argmax(2) == words) & known).sum() / known.sum()
        return losses

    def cost_of_boxes(self, alphas: Tensor, words: Tensor, shares: Tensor) -> Tensor:
        """``- sum log(sum_i share_ni alpha_nti) / N`` over the boxed words (N, T) of images that have boxes.

        By image, ``shares`` (N, L) say how much of each location lies in a box; without boxes they are zeros.
        """
        taught = (words == self.vocabulary.encode(self.boxed_word)[0]) & shares.any(1, keepdim=True)  # N, T
        inside = torch.einsum('ntl,nl->nt', alphas, shares)[taught]
        return -inside.clamp_min(torch.finfo(inside.dtype).tiny).log().sum() / len(words)

    def predict(self, images: Tensor, data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Captions of images, with the attention of each word.

        Args:
            images (Tensor): Images (N, 3, H, W).
            data_samples (List[DataSample], optional): Where the results are written. Defaults to new ones.

        Returns:
            List[DataSample]: With ``pred_caption``; ``pred_words``, its words; ``pred_attention`` (words, H, W), each
            map with sum 1; ``pred_gate`` (words,) in (0, 1); and ``caption_score``, its log probability.
        """
        features = self.extract(images)
        grid = tuple(features.shape[2:])
        captions = self.search(features)
        maps = self.word_maps(captions.alphas.unflatten(2, grid))
        data_samples = data_samples or [DataSample() for _ in images]
        for i, sample in enumerate(data_samples):
            words = self.vocabulary.decode(captions.words[i].tolist())
            sample.pred_caption = ' '.join(words)
            sample.set_field(words, 'pred_words')
            sample.set_field(maps[i, : len(words)], 'pred_attention')
            sample.set_field(captions.betas[i, : len(words)], 'pred_gate')
            sample.set_field(captions.scores[i], 'caption_score')
        return data_samples

    @torch.no_grad()
    def search(self, features: Tensor) -> Captions:
        """The likeliest captions that a beam search finds, for all images at once.

        As in the authors' code: of ``k`` captions that are followed, those that end leave the beam, which has one less
        from then on, and of all that ended or were cut off the likeliest one wins. Rows are beam by beam.

        Args:
            features (Tensor): Feature map (N, D, H, W).

        Returns:
            Captions: The captions.
        """
        n, k, grid = len(features), self.beam_size, tuple(features.shape[2:])
        annotations = features.flatten(2).transpose(1, 2)  # N, L, D
        # Every tensor of a beam is (k, N, ...) and runs through the decoder as (k N, ...).
        annotations, projected, hidden, cell = (
            state.expand(k, *state.shape).flatten(0, 1) for state in (annotations, *self.decoder.start(annotations))
        )
        last = torch.full((k * n,), -1, device=features.device)
        scores = features.new_full((k, n), float('-inf'))
        scores[0] = 0  # all beams begin alike
        ended = torch.zeros(n, dtype=torch.long, device=features.device)
        words = last.new_zeros(k, n, 0)
        alphas, betas = features.new_zeros(k, n, 0, grid[0] * grid[1]), features.new_zeros(k, n, 0)
        best = [None] * n, features.new_full((n,), float('-inf'))  # words, alphas and betas; their score

        def keep(beam: int, image: int) -> None:
            if scores[beam, image] > best[1][image]:
                best[0][image] = words[beam, image], alphas[beam, image], betas[beam, image]
                best[1][image] = scores[beam, image]

        rank = torch.arange(k, device=features.device)[:, None]
        images = torch.arange(n, device=features.device)
        for _ in range(self.max_words):
            step = self.decoder(annotations, projected, last, hidden, cell, grid)
            following = scores[..., None] + step.logits.log_softmax(1).unflatten(0, (k, n))  # k, N, words
            scores, place = following.transpose(0, 1).flatten(1).topk(min(k, following[:, 0].numel()), dim=1)
            scores, place = scores.T, place.T  # k, N
            scores = F.pad(scores, (0, 0, 0, k - len(scores)), value=float('-inf'))
            place = F.pad(place, (0, 0, 0, k - len(place)))
            scores = scores.masked_fill(rank >= k - ended, float('-inf'))
            parent, word = place // following.shape[2], place % following.shape[2]

            words = torch.cat([words[parent, images], word[:, :, None]], 2)
            alphas = _append(alphas, step.alpha, parent)
            betas = _append(betas, step.beta, parent)
            over = (word == 0) & scores.isfinite()
            for beam, image in over.nonzero().tolist():
                keep(beam, image)
            ended = ended + over.sum(0)
            scores = scores.masked_fill(over, float('-inf'))
            if (ended >= k).all():
                break
            rows = (parent * n + images).flatten()
            hidden, cell, last = step.hidden[rows], step.cell[rows], word.flatten()
        for beam, image in scores.isfinite().nonzero().tolist():  # cut off
            keep(beam, image)
        pad = nn.utils.rnn.pad_sequence
        captions = [pad(parts, batch_first=True) for parts in zip(*best[0])]
        written = captions[0] != 0
        longest = max(1, int(written.sum(1).max()))
        words, alphas, betas, written = (values[:, :longest] for values in (*captions, written))
        return Captions(words, best[1], alphas * written[..., None], betas * written)


def _last(features: Tensor | Sequence[Tensor]) -> Tensor:
    return features if isinstance(features, Tensor) else features[-1]


def _append(beams: Tensor, new: Tensor, parent: Tensor) -> Tensor:
    """Beams (k, N, T, ...) that go on from their parents (k, N), with what these have got last (k N, ...)."""
    images = torch.arange(parent.shape[1], device=parent.device)
    return torch.cat([beams[parent, images], new.unflatten(0, parent.shape)[parent, images][:, :, None]], 2)
