"""Show, Attend and Tell against an example that was worked out by hand, and searches against plain loops."""

import itertools
import json
import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.apis import ImageCaptionInferencer
from mmpretrain.structures import DataSample
from torch import nn

from mmresattn.apis import AttentionInferencer
from mmresattn.models.captioners import (
    AttendTellDecoder,
    Vocabulary,
    doubly_stochastic,
    hard_attention_loss,
)
from mmresattn.models.layers import edit_attention, record_attention
from mmresattn.weights import record

ANNOTATIONS = torch.tensor([[[1.0, 0], [0, 1], [1, -1]]], dtype=torch.float64)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def decoder():
    """Two annotations' channels, two states, an embedding of one number; matrices for row vectors are transposed."""
    made = AttendTellDecoder(3, 2, 1, 2, dropout=0.0).double()
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    values = {
        'annotation_layers.0.weight': tensor([0.5, -0.25], [0.1, 0.4]).T,
        'annotation_layers.0.bias': tensor(0.05, -0.1),
        'state_layer.weight': tensor([0.3, 0.2], [-0.6, 0.1]).T,
        'score.weight': tensor([1, -2]),
        'score.bias': tensor(0.2),
        'gate.weight': tensor([0.7, -0.3]),
        'gate.bias': tensor(0.1),
        'first_hidden.0.weight': tensor([0.2, -0.4], [0.6, 0.1]).T,
        'first_hidden.0.bias': tensor(0.1, 0),
        'first_cell.weight': tensor([-0.3, 0.5], [0.2, 0.2]).T,
        'first_cell.bias': tensor(0, 0.05),
        'embedding.weight': tensor([0.0], [0.0], [0.8]),
        'hidden_output.weight': tensor([0.5, -1]),
        'context_output.weight': tensor([0.25, 0.5]),
        'word_output.weight': tensor([1.0], [-1], [0.5]),
        'word_output.bias': tensor(0, 0.1, -0.2),
    }
    gates = [0, 1, 2, 3, 6, 7, 4, 5]  # columns i, f, o, g of the authors; PyTorch has i, f, g, o
    inputs = tensor(
        [0.1, 0.2, -0.1, 0.3, 0.4, -0.2, 0.25, -0.5],
        [0.3, 0.1, -0.2, 0.2, 0.5, -0.1, 0.4, 0.2],
        [0.1, -0.3, 0.2, 0.1, -0.4, 0.3, -0.2, 0.5],
    )
    states = tensor([0.2, -0.1, 0.3, 0.1, -0.2, 0.4, 0.5, -0.3], [-0.3, 0.2, 0.1, -0.4, 0.2, 0.1, -0.1, 0.6])
    values['lstm.weight_ih'] = inputs[:, gates].T
    values['lstm.weight_hh'] = states[:, gates].T
    values['lstm.bias_ih'] = tensor(0, 0.1, 0.2, 0, -0.1, 0.05, 0.1, -0.2)[gates]
    made.load_state_dict(values, strict=False)
    return made


def close(found, *expected):
    return torch.allclose(found.flatten(), tensor(*expected), rtol=0, atol=2e-10)


@torch.no_grad()
def test_two_words_worked_out_by_hand(decoder):
    projected, hidden, cell = decoder.start(ANNOTATIONS)
    assert close(hidden, 0.2291889965, -0.2605204458) and close(cell, -0.1973753202, 0.3655987722)
    first = decoder(ANNOTATIONS, projected, torch.tensor([-1]), hidden, cell, (1, 3))
    second = decoder(ANNOTATIONS, projected, torch.tensor([2]), first.hidden, first.cell, (1, 3))
    assert close(first.alpha, 0.3399583484, 0.0723358884, 0.5877057632) and close(first.beta, 0.5838475953)
    assert close(first.hidden, 0.0900892922, -0.0171817923) and close(first.cell, 0.1658538216, -0.0348798789)
    assert close(second.alpha, 0.3444808618, 0.0696329868, 0.5858861514) and close(second.beta, 0.5419553730)
    assert close(second.hidden, 0.2327148087, -0.1586487284) and close(second.cell, 0.3829914709, -0.3704417242)
    assert close(first.logits.softmax(1), 0.3564579477, 0.3584981811, 0.2850438712)
    assert close(second.logits.softmax(1), 0.5611509058, 0.1287367170, 0.3101123772)
    likely = torch.cat([first.logits, second.logits]).softmax(1)[[0, 1], [2, 0]]
    assert -(likely + 1e-8).log().sum().item() == pytest.approx(1.8328775392, abs=1e-9)  # as in the authors' code
    alphas = torch.stack([first.alpha, second.alpha], 1)
    assert doubly_stochastic(alphas, 'paper').item() == pytest.approx(0.8659301761, abs=1e-9)
    assert doubly_stochastic(alphas, 'code').item() == pytest.approx(0.2886433920, abs=1e-9)
    both = torch.cat([alphas, tensor([[0.5, 0.25, 0.25]] * 2)])
    assert doubly_stochastic(both, 'code').item() == pytest.approx(0.4553100587, abs=1e-9)
    assert doubly_stochastic(both, 'mean').item() == pytest.approx(0.2276550293, abs=1e-9)
    assert doubly_stochastic(both, 'paper').item() == pytest.approx(0.6829650880, abs=1e-9)
    decoder.temperature = 2
    warm = decoder(ANNOTATIONS, projected, torch.tensor([-1]), hidden, cell, (1, 3))
    assert close(warm.alpha, 0.2479003162, 0.0112236289, 0.7408760549)
    decoder.temperature = 1
    decoder.annotation_layers.extend([nn.Linear(2, 2).double(), nn.Tanh()])
    decoder.annotation_layers[1].weight.copy_(tensor([0.6, 0.8], [-0.8, 0.6]).T)
    decoder.annotation_layers[1].bias.copy_(tensor(0, 0.1))
    two = decoder(ANNOTATIONS, decoder.start(ANNOTATIONS)[0], torch.tensor([-1]), hidden, cell, (1, 3))
    assert close(two.alpha, 0.2880688854, 0.1462416337, 0.5656894809)


def test_gradient_of_hard_attention_worked_out_by_hand():
    scores = tensor([[1.4872938508, -0.0602088666, 2.0346971655]]).requires_grad_()
    alphas = scores.softmax(2)
    alphas.retain_grad()
    chosen = tensor([[0, 0, 1.0]])
    hard_attention_loss(alphas, chosen, tensor(2.4 - 0.682), 0.1, 0.002).backward()
    assert close(alphas.grad, -0.0001578643, -0.0032528698, 0.2932600923)
    assert close(scores.grad, -0.0585474718, -0.0126815337, 0.0712290055)


WORDS = ['red', 'white', 'cell', 'left', 'right', 'one']
TINY = dict(
    type='ShowAttendTell',
    backbone=dict(type='VGG', depth=11, with_last_pool=False, out_indices=(1,)),
    in_channels=128,
    vocabulary=WORDS,
    embed_dims=8,
    hidden_dims=16,
    attention_layers=2,
    init_layers=2,
)


def build(**changes):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(TINY | changes).eval()
    nn.init.normal_(model.decoder.word_output.weight, std=1.0)  # opinions, so that searches differ
    nn.init.normal_(model.decoder.score.weight, std=3.0)
    return model


@pytest.fixture(scope='module')
def images():
    return torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def captioned(*captions):
    samples = [DataSample() for _ in captions]
    for sample, caption in zip(samples, captions):
        sample.gt_caption = caption
    return samples


def beam_search(model, features, k, longest):
    """One image, lists of hypotheses: the k best, less those that ended."""
    net, grid = model.decoder, tuple(features.shape[2:])
    annotations = features.flatten(2).transpose(1, 2)
    projected, hidden, cell = net.start(annotations)
    alive, done = [(0.0, [], hidden, cell, [])], []
    for _ in range(longest):
        following = []
        for score, words, hidden, cell, maps in alive:
            last = torch.tensor([words[-1] if words else -1])
            step = net(annotations, projected, last, hidden, cell, grid)
            for word, log in enumerate(step.logits.log_softmax(1)[0].tolist()):
                following.append((score + log, [*words, word], step.hidden, step.cell, [*maps, step.alpha[0]]))
        following.sort(key=lambda one: -one[0])
        following = following[: k - len(done)]
        done += [one for one in following if one[1][-1] == 0]
        alive = [one for one in following if one[1][-1] != 0]
        if not alive:
            break
    score, words, _, _, maps = max(done + alive, key=lambda one: one[0])
    return score, [word for word in words if word], maps


@torch.no_grad()
@pytest.mark.parametrize('k', [1, 3])
def test_searches_are_those_of_plain_loops(images, k):
    model = build(beam_size=k, max_words=6)
    model.decoder.word_output.bias[0] = 2.0
    features = model.extract(images)
    told, lengths = model.search(features), set()
    for i in range(3):
        score, words, maps = beam_search(model, features[i : i + 1], k, 6)
        assert told.words[i, : len(words)].tolist() == words and not told.words[i, len(words) :].any()
        assert told.scores[i].item() == pytest.approx(score, abs=1e-4)
        for t in range(len(words)):
            assert torch.allclose(told.alphas[i, t], maps[t], atol=1e-6)
        assert not told.alphas[i, len(words) :].any()
        lengths.add(len(words))
    if k == 3:
        assert (told.scores >= build(beam_size=1, max_words=6).search(features).scores - 9).all()


@torch.no_grad()
def test_a_beam_that_holds_everything_finds_the_likeliest_caption(images):
    model = build(beam_size=8**2, max_words=3)
    features = model.extract(images[:1])
    told = model.search(features)
    best = float('-inf')
    for length in range(4):
        for words in itertools.product(range(1, 8), repeat=length):
            words = [*words, 0][:3] if length < 3 else list(words)
            logs = model.tell(features, torch.tensor([words]))[0].log_softmax(2)
            best = max(best, sum(logs[0, t, word].item() for t, word in enumerate(words)))
    assert told.scores[0].item() == pytest.approx(best, abs=1e-4)


def test_forward_has_the_modes_of_mmpretrain(images):
    model = build()
    samples = captioned('One white cell.', 'red cell left', 'a WHITE cell right')
    logits = model(images, samples, mode='tensor')
    assert logits.shape == (3, 5, 8)
    losses = model(images, samples, mode='loss')
    words, known = model.targets(samples, images.device)
    assert words.tolist() == [[7, 3, 4, 0, 0], [2, 4, 5, 0, 0], [1, 3, 4, 6, 0]]  # `a` is not known
    assert known.sum(1).tolist() == [4, 4, 5]
    expected = 0
    for i in range(3):
        for t in range(known[i].sum()):
            row = logits[i, t].double()
            expected -= row[words[i, t]].item() - math.log(row.exp().sum().item())
    assert losses['loss_words'].item() == pytest.approx(expected / 3, rel=1e-5)
    with record_attention(model) as maps:
        model(images, samples, mode='tensor')
    assert maps['word_maps'].shape == (3, 5, 4, 6)
    told = maps['word_maps'] * known[..., None, None]
    penalty = sum((1 - told[i, :, y, x].sum().item()) ** 2 for i in range(3) for y in range(4) for x in range(6)) / 72
    assert losses['loss_penalty'].item() == pytest.approx(penalty, rel=1e-4)
    assert model(images).shape == (3, 128, 4, 6)
    with pytest.raises(RuntimeError, match='Invalid mode'):
        model(images, mode='other')
    (first, *_) = model(images, mode='predict')
    assert first.pred_caption == ' '.join(first.pred_words)
    assert first.pred_attention.shape == (len(first.pred_words), 4, 6)
    assert torch.allclose(first.pred_attention.sum((1, 2)), torch.ones(len(first.pred_words)))


def test_gradients_reach_every_weight_but_those_of_the_frozen_backbone(images):
    for attention in ('soft', 'hard'):
        model = build(attention=attention, sampling=1.0).train()
        losses = model(images, captioned('one white cell', 'red cell', 'cell left'), mode='loss')
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == (not name.startswith('backbone.')), name
            # adding a number to all scores changes no attention
            assert parameter.grad is None or parameter.grad.abs().sum() > 0 or name == 'decoder.score.bias', name
        assert not model.backbone.training


def test_hard_attention_draws_single_places_and_moves_its_baseline(images):
    model = build(attention='hard', sampling=1.0).train()
    samples = captioned('one white cell', 'red cell', 'cell left')
    words, known = model.targets(samples, images.device)
    features = model.extract(images, samples)
    _, alphas, chosen = model.tell(features, words, sample=True)
    assert torch.equal(chosen.sum(2), torch.ones(chosen.shape[:2])) and set(chosen.unique().tolist()) == {0, 1}
    drawn = torch.stack([model.tell(features, words, sample=True)[2][:, 0] for _ in range(200)]).mean(0)
    assert torch.allclose(drawn, alphas[:, 0], atol=0.15)
    costs = []
    for _ in range(3):
        losses = model(images, samples, mode='loss')
        costs.append(losses['loss_words'].item() * 3 / known.sum().item())
    expected = 0.0
    for cost in costs:
        expected = 0.9 * expected + 0.1 * cost
    assert model.baseline.item() == pytest.approx(expected, rel=1e-5)
    model.eval().sampling = 0.0
    assert torch.equal(model.tell(features, words)[1], model.tell(features, words)[2])  # the expectation


@pytest.mark.parametrize('attention', ['soft', 'hard'])
def test_boxes_teach_the_map_of_a_word(images, attention):
    model = build(attention=attention, boxed_word='white', boxes_weight=0.5, sampling=0.0).train()
    samples = captioned('one white cell', 'white cell left', 'red white')
    boxes = [[[4, 0, 12, 16]], [[0, 8, 24, 12], [0, 12, 8, 16]], []]
    for sample, found in zip(samples, boxes):
        sample.gt_bboxes = np.array(found, np.float32).reshape(-1, 4)
    with record_attention(model) as maps:
        losses = model(images, samples, mode='loss')
    first, second = maps['word_maps'][0, 1], maps['word_maps'][1, 0]  # 4x6, of 4x4 pixels each
    inside = first[:, 1:3].sum(), second[2].sum() + second[3, :2].sum()  # the last image has no box
    expected = -0.5 * sum(math.log(value.item()) for value in inside) / 3
    assert losses['loss_boxes'].item() == pytest.approx(expected, rel=1e-4)
    losses['loss_boxes'].backward()
    assert model.decoder.score.weight.grad.any()


@torch.no_grad()
def test_edits_of_the_attention_change_what_is_told(images):
    model = build(positions=1.0)
    assert model.decoder.score.in_features == 130
    corner = torch.zeros(1, 1, 4, 6)
    corner[..., 0, 0] = 1
    with edit_attention(model, {'decoder.map': corner}):
        told = model.search(model.extract(images))
    written = told.words != 0
    assert torch.equal(told.alphas[..., 0], written.float()) and not told.alphas[..., 1:].any()


def test_kept_features_are_those_of_the_backbone(images):
    model = build(keep_features=True).train()
    samples = captioned('one', 'red', 'cell')
    for i, sample in enumerate(samples):
        sample.set_metainfo(dict(img_path=f'{i}.png', flip_direction='horizontal' if i else None))
    first = model.extract(images, samples)
    again = model.extract(torch.zeros_like(images), samples[::-1])  # not looked at any more
    assert torch.equal(again, first.flip(0)) and torch.equal(first, model.eval().extract(images))


@torch.no_grad()
def test_annotations_are_normalised_and_know_their_places(images):
    features = build(normalize=True, positions=5.0).extract(images)
    plain = build().backbone(images)[-1]
    spread = plain.var(1, unbiased=False, keepdim=True).add(1e-5).sqrt()
    assert torch.allclose(features[:, :128], (plain - plain.mean(1, keepdim=True)) / spread, atol=1e-5)
    assert torch.equal(features[0, 128, :, 3], 5 * torch.linspace(-1, 1, 4))  # rows
    assert torch.equal(features[1, 129, 2], 5 * torch.linspace(-1, 1, 6))  # columns


def test_vocabulary(tmp_path):
    made = Vocabulary.of(["A dog's ball, a red ball.", 'A cat'], max_words=4)
    assert made.words == ['<end>', '<unk>', 'a', 'ball', 'cat', "dog's"]
    made.save(tmp_path / 'words.txt')
    assert Vocabulary(str(tmp_path / 'words.txt')).words == made.words
    assert made.encode('A Red ball!') == [2, 1, 3, 0] and made.decode([2, 3, 0, 4]) == ['a', 'ball']
    with pytest.raises(FileNotFoundError, match='caption_vocabulary.py CONFIG'):
        Vocabulary(tmp_path / 'none.txt')
    with pytest.raises(ValueError, match="twice: \\['a'\\]"):
        Vocabulary(['a', 'b', 'a'])
    model = build(vocabulary=str(tmp_path / 'later.txt'), num_words=10)  # built before the file is there
    made.save(tmp_path / 'later.txt')
    assert model.vocabulary.words == made.words and model.decoder.embedding.num_embeddings == 10
    assert record(build())['vocabulary'] == WORDS


@pytest.fixture
def archive(tmp_path):
    """Six images in the layout of Karpathy's files."""
    generator = np.random.default_rng(0)
    entries = []
    for i in range(6):
        image = np.zeros((20, 30, 3), np.uint8)
        image[:, :15] = (0, 0, 200) if i % 2 else (200, 200, 200)
        cv2.imwrite(str(tmp_path / f'{i}.png'), image + generator.integers(0, 50, image.shape, dtype=np.uint8))
        said = 'one red cell left' if i % 2 else 'One white cell left.'
        sentences = [dict(raw=said, tokens=[], sentid=i)] * (1 + i % 2)
        split = ('train', 'train', 'restval', 'restval', 'val', 'test')[i]
        entries.append(dict(filename=f'{i}.png', imgid=10 + i, split=split, sentences=sentences))
    (tmp_path / 'captions.json').write_text(json.dumps(dict(images=entries)))
    return tmp_path


def config(archive, **model):
    load = [dict(type='LoadCheckedImage'), dict(type='Resize', scale=(24, 16))]
    pack = dict(type='PackInputs', algorithm_keys=['gt_caption'], meta_keys=['image_id', 'img_path', 'ori_shape'])
    dataset = dict(type='KarpathyCaptions', data_root=str(archive), ann_file='captions.json', pipeline=[*load, pack])
    loader = dict(batch_size=2, num_workers=0, collate_fn=dict(type='default_collate'))
    return Config(
        dict(
            default_scope='mmpretrain',
            custom_imports=dict(imports=['mmresattn']),
            model=TINY | dict(data_preprocessor=dict(mean=[0.0] * 3, std=[60.0] * 3)) | model,
            train_dataloader=loader
            | dict(
                sampler=dict(type='DefaultSampler', shuffle=True), dataset=dataset | dict(split=['train', 'restval'])
            ),
            val_dataloader=loader
            | dict(
                sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset | dict(split='val', test_mode=True)
            ),
            test_dataloader=loader
            | dict(
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dataset | dict(split=['train', 'val', 'test'], test_mode=True),
            ),
            randomness=dict(seed=0),
            val_evaluator=dict(type='CaptionMetric'),
            test_evaluator=dict(type='CaptionMetric'),
            optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.02)),
            train_cfg=dict(by_epoch=True, max_epochs=40, val_interval=40),
            val_cfg=dict(),
            test_cfg=dict(),
            default_hooks=dict(logger=dict(type='LoggerHook', interval=100)),
            work_dir=str(archive / 'work'),
            log_level='WARNING',
        )
    )


def test_trains_tests_and_runs_in_both_inferencers(archive):
    pytest.importorskip('pycocoevalcap')
    cfg = config(archive, dropout=0.0, keep_features=True)
    runner = Runner.from_cfg(cfg)
    runner.train()
    scores = runner.test()
    assert scores['caption/exact'] == 1 and scores['caption/BLEU-4'] > 0.99
    model = runner.model.eval()
    model._config = cfg
    (theirs,) = ImageCaptionInferencer(model)(str(archive / '5.png'))
    assert theirs == dict(pred_caption='one red cell left')
    (ours,) = AttentionInferencer(model)(str(archive / '5.png'), on_image=True)
    assert ours['prediction'].pred_caption == 'one red cell left'
    assert ours['attention']['word_maps'].shape == (4, 4, 6)
    assert torch.allclose(ours['attention']['word_maps'], ours['prediction'].pred_attention)
    assert ours['attention_on_image']['word_maps'].shape == (20, 30)
