import math

import numpy as np
import pytest
import torch
from mmpretrain.evaluation import Accuracy, MultiTasksMetric
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmresattn.models.classifiers.bayesian_attention_branch_network import ThinnedNetworks, more_confident_branch
from mmresattn.models.layers import edit_attention, record_attention

RESNET = dict(type='CIFARResNet', depth=14, base_channels=4, stem_channels=4)  # two blocks a stage
WRN = dict(type='CIFARWideResNet', depth=10, widen_factor=1, drop_rate=0)


def build(backbone=RESNET, bayesian=True, **kwargs):
    """In float64, with random statistics and affine weights of normalisations."""
    kind = 'BayesianAttentionBranchNetwork' if bayesian else 'AttentionBranchNetwork'
    torch.manual_seed(0)
    head = dict(type='AttentionBranchHead', num_classes=4)
    model = MODELS.build(dict(type=kind, backbone=backbone, head=head, **kwargs))
    model.init_weights()
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.normal_(tensor, std=0.2)
    torch.nn.init.normal_(model.head.fc.weight)
    return model.double().eval()


def images(n=3):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_the_branch_of_lower_entropy_answers_and_ties_go_to_the_perception_branch():
    """The worked example, entropies 0.943348 and 0.801819; then its mirror, a tie, and certainty against chance."""
    perception = torch.tensor([[0.5, 0.4, 0.1], [0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3]]).double()
    attention = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7], [0.0, 1.0, 0.0]]).double()
    by_attention, entropies = more_confident_branch(perception, attention)
    assert by_attention.tolist() == [True, False, False, True]
    expected = [[0.943348, 0.801819, 0.801819, math.log(3)], [0.801819, 0.943348, 0.801819, 0]]
    torch.testing.assert_close(entropies, torch.tensor(expected).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize('backbone', [RESNET, WRN], ids=['resnet', 'wrn'])
@pytest.mark.parametrize('passes_at_once', [1, 3, 7])
def test_the_passes_are_a_loop_over_plain_networks_whose_blocks_are_masked(backbone, passes_at_once):
    model = build(backbone, drop_rate=0.3, passes=7, passes_at_once=passes_at_once, seed=5)
    plain = build(backbone, bayesian=False)
    plain.load_state_dict(model.state_dict())  # strict: the same names
    blocks = [block for part in (plain.neck, plain.head) for block in next(part.stage.children())]
    expected = 0
    with torch.no_grad():
        for i in range(7):
            rng = torch.Generator().manual_seed(int(np.random.SeedSequence((5, i)).generate_state(1)[0]))

            def mask(module, args, out, rng=rng):
                return torch.where(torch.rand(out.shape[1:], generator=rng) < 0.3, 0, out / 0.7)

            hooks = [block.register_forward_hook(mask) for block in blocks]
            feats = plain.extract_feat(images())
            expected = expected + torch.stack((plain.head(feats), feats[1])).softmax(2) / 7
            for hook in hooks:
                hook.remove()
        got = torch.stack(model.sample(images()))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got.sum(2), torch.ones(2, 3).double())


def test_dropout_keeps_the_mean_and_drops_single_features():
    thinned = ThinnedNetworks(0.3, 0, range(40), torch.device('cpu'))
    x = torch.ones(80, 3, 6, 6)  # 2 images
    y = thinned(x).view(40, 2, 3, 6, 6)
    assert set(y.unique().tolist()) == {0.0, x.div(0.7).max().item()}
    assert torch.equal(y[:, 0], y[:, 1])  # one thinned network a pass
    assert len(y[:, 0].flatten(1).unique(dim=0)) == 40
    assert abs(y[:, 0].mean() - 1) < 4 * math.sqrt(0.3 / 0.7 / 40 / 108)  # four deviations
    assert not torch.equal(thinned(x).view_as(y), y)  # the next block drops others


def test_predictions_are_those_of_the_seed_alone():
    model = build(passes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with torch.no_grad():
        first = torch.stack(model.sample(images()))
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(3)
        assert torch.equal(torch.stack(model.sample(images())), first)
        # Of no other image in the batch.
        torch.testing.assert_close(torch.stack(model.sample(images()[1:2])), first[:, 1:2])
        model.seed = 1
        assert not torch.allclose(torch.stack(model.sample(images())), first)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())  # running statistics


def test_without_dropout_it_is_the_plain_network_also_in_tensor_mode():
    model, plain = build(passes=2, drop_rate=0.0), build(bayesian=False)
    plain.load_state_dict(model.state_dict())
    dropping = build(passes=2, drop_rate=0.5)
    dropping.load_state_dict(model.state_dict())
    with torch.no_grad():
        feats = plain.extract_feat(images())
        expected = torch.stack((plain.head(feats), feats[1]))
        torch.testing.assert_close(torch.stack(model.sample(images())), expected.softmax(2))
        for network in (model, dropping):
            assert torch.equal(network(images(), mode='tensor'), expected[0])
        assert not torch.allclose(torch.stack(dropping.sample(images())), expected.softmax(2))


def test_training_drops_features_in_both_branches():
    model = build(drop_rate=0.5)
    samples = [DataSample().set_gt_label(i) for i in range(3)]
    model.train()
    torch.manual_seed(0)
    first = model(images(), samples, mode='loss')
    second = model(images(), samples, mode='loss')
    for name in ('perception_loss', 'attention_loss'):
        assert first[name] != second[name]
    (first['perception_loss'] + first['attention_loss']).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_extractor_runs_once_and_every_map_is_seen_and_edited():
    model = build(passes=5, passes_at_once=2)
    runs = []
    model.backbone.register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad(), record_attention(model, every=True) as maps:
        model(images(), mode='predict')
        assert len(runs) == 1
        assert [tuple(m.shape) for m in maps['neck.map']] == [(3, 1, 4, 4)] * 5
        assert len({m.numpy().tobytes() for m in maps['neck.map']}) == 5
        drawn = torch.rand(3, 1, 4, 4).double()  # one for each image, in all passes
        with edit_attention(model, {'neck.map': drawn}):
            model(images(), mode='predict')
        assert all(torch.equal(m, drawn) for m in maps['neck.map']) and len(maps['neck.map']) == 5


def test_predictions_carry_both_branches_and_their_entropies(monkeypatch):
    model = build(passes=1)
    n = 24
    perception, attention = torch.randn(2, n, 4, generator=torch.Generator().manual_seed(0)).mul(3).softmax(2)
    samples = [DataSample().set_gt_label(i % 4) for i in range(n)]
    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr(model, 'sample', lambda inputs: (perception, attention))
        samples = model(images(n), samples, mode='predict')
    by_attention, entropies = more_confident_branch(perception, attention)
    assert 0 < by_attention.sum() < n  # both answer here
    for i, sample in enumerate(samples):
        for name, scores, entropy in zip(('perception_branch', 'attention_branch'), (perception, attention), entropies):
            branch = sample.get(name)
            assert torch.equal(branch.pred_score, scores[i]) and branch.pred_label.item() == scores[i].argmax()
            assert branch.entropy == entropy[i]
        name = 'attention_branch' if by_attention[i] else 'perception_branch'
        assert sample.answered_by == name and sample.entropy == entropies[:, i].min()
        assert torch.equal(sample.pred_score, sample.get(name).pred_score)
        assert torch.equal(sample.pred_label, sample.get(name).pred_label)
    branches = dict.fromkeys(('perception_branch', 'attention_branch'), [dict(type='Accuracy', topk=(1,))])
    answer = torch.where(by_attention[:, None], attention, perception)
    expected = {}
    for prefix, scores in {'': answer, 'perception_branch_': perception, 'attention_branch_': attention}.items():
        hits = (scores.argmax(1) == torch.arange(n) % 4).double().mean().item()
        expected[f'{prefix}accuracy/top1'] = pytest.approx(100 * hits)
    got = {}
    for metric in (Accuracy(topk=(1,)), MultiTasksMetric(branches)):
        metric.process(None, [sample.to_dict() for sample in samples])
        got.update(metric.evaluate(n))
    assert got == expected
    (alone,) = model(images(1), mode='predict')
    assert alone.pred_score.shape == (4,) and 'gt_label' not in alone.attention_branch


def test_wrong_arguments_are_named():
    for wrong in (dict(drop_rate=1), dict(passes=0), dict(passes_at_once=0)):
        with pytest.raises(ValueError, match=r'drop_rate must be in \[0, 1\), passes and passes_at_once at least 1'):
            build(**wrong)
