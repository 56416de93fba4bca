import pytest
import torch
import torch.nn.functional as F
from mmpretrain.evaluation import Accuracy, MultiTasksMetric
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmresattn.models import attention_branch_network

BACKBONE = dict(type='CIFARResNet', depth=8, base_channels=4, stem_channels=4)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = MODELS.build(attention_branch_network(BACKBONE, 4, topk=(1, 2), cal_acc=True))
    model.init_weights()
    return model


def batch(n=6):
    torch.manual_seed(1)
    return torch.randn(n, 3, 16, 16), [DataSample().set_gt_label(i % 4) for i in range(n)]


def test_the_tensor_mode_gives_the_scores_of_the_perception_branch(model):
    model.eval()
    x, _ = batch()
    with torch.no_grad():
        scores = model(x, mode='tensor')
        attended, _, _ = model.extract_feat(x)  # N, 8, 8, 8
        hidden = model.head.stage.layer3(attended)
    assert isinstance(scores, torch.Tensor) and hidden.shape == (6, 16, 4, 4)
    expected = F.linear(hidden.flatten(2).mean(2), model.head.fc.weight, model.head.fc.bias)
    torch.testing.assert_close(scores, expected)


def test_the_loss_is_the_sum_of_both_cross_entropies(model):
    model.eval()
    x, samples = batch()
    labels = torch.arange(6) % 4
    losses = model(x, samples, mode='loss')
    feats = model.extract_feat(x)
    expected = {'perception': model.head(feats), 'attention': feats[1]}
    total, _ = model.parse_losses(losses)
    for branch, scores in expected.items():
        torch.testing.assert_close(losses[f'{branch}_loss'], F.cross_entropy(scores, labels))
        correct = (scores.argmax(1) == labels).double().mean() * 100
        assert losses[f'{branch}_accuracy_top-1'][0].item() == pytest.approx(correct.item())
    torch.testing.assert_close(total, sum(F.cross_entropy(scores, labels) for scores in expected.values()))


def test_soft_labels_of_mixup_reach_both_branches():
    model = MODELS.build(
        attention_branch_network(BACKBONE, 4, loss=dict(type='CrossEntropyLoss', use_soft=True), topk=(1,))
    )
    model.eval()
    x, _ = batch()
    soft = torch.rand(6, 4).softmax(1)
    samples = [DataSample().set_gt_score(score) for score in soft]
    losses = model(x, samples, mode='loss')
    feats = model.extract_feat(x)
    torch.testing.assert_close(losses['perception_loss'], F.cross_entropy(model.head(feats), soft))
    torch.testing.assert_close(losses['attention_loss'], F.cross_entropy(feats[1], soft))


def test_predictions_of_both_branches_and_their_accuracies(model):
    model.eval()
    x, samples = batch()
    labels = torch.arange(6) % 4
    with torch.no_grad():
        feats = model.extract_feat(x)
        scores = dict(perception=model.head(feats), attention=feats[1])
        samples = model(x, samples, mode='predict')
    for i, sample in enumerate(samples):
        torch.testing.assert_close(sample.pred_score, scores['perception'][i].softmax(0))
        torch.testing.assert_close(sample.attention_branch.pred_score, scores['attention'][i].softmax(0))
        assert sample.attention_branch.pred_label.item() == scores['attention'][i].argmax()
    samples = [sample.to_dict() for sample in samples]  # as MMEngine hands them to metrics
    perception = Accuracy(topk=(1, 2))
    attention = MultiTasksMetric(dict(attention_branch=[dict(type='Accuracy', topk=(1, 2))]))
    for metric in (perception, attention):
        metric.process(None, samples)
    got = {**perception.evaluate(6), **attention.evaluate(6)}
    for branch, prefix in (('perception', 'accuracy'), ('attention', 'attention_branch_accuracy')):
        for k in (1, 2):
            hits = (scores[branch].topk(k).indices == labels[:, None]).any(1).double().mean() * 100
            assert got[f'{prefix}/top{k}'] == pytest.approx(hits.item())


def test_predictions_without_samples(model):
    model.eval()
    x, _ = batch(2)
    (first, _) = model(x, mode='predict')
    assert first.pred_score.shape == first.attention_branch.pred_score.shape == (4,)
    assert 'gt_label' not in first.attention_branch


def test_a_training_step_reaches_every_weight(model):
    model.train()
    x, samples = batch()
    total, _ = model.parse_losses(model(x, samples, mode='loss'))
    total.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_corrected_maps_that_some_samples_have():
    """The worked example: M = [[.2, .8], [.5, .1]] and M' = [[0, 1], [.5, 0]] are 0.3 apart; here in one of two."""
    model = MODELS.build(attention_branch_network(BACKBONE, 4, map_loss_weight=10.0))
    m = torch.tensor([[0.2, 0.8], [0.5, 0.1]]).expand(2, 1, 2, 2).clone().requires_grad_()
    feats = (torch.rand(2, 8, 2, 2), torch.rand(2, 4), m)
    _, samples = batch(2)
    plain = model.head.loss(feats, samples)
    assert plain.pop('map_loss') == 0
    samples[1].set_field(torch.tensor([[0.0, 1.0], [0.5, 0.0]]), 'gt_attention_map')
    losses = model.head.loss(feats, samples)
    assert losses.keys() == {'perception_loss', 'attention_loss', 'map_loss'} == {*plain, 'map_loss'}
    torch.testing.assert_close(losses['map_loss'], torch.tensor(10 * 0.3 / 2))
    losses['map_loss'].backward()
    assert (m.grad[0] == 0).all()
    torch.testing.assert_close(m.grad[1, 0], torch.tensor([[0.2, -0.2], [0.0, 0.1]]) / 0.3 * 5)
    samples[1].set_field(torch.ones(1, 6, 8).numpy(), 'gt_attention_map')  # as a pipeline packs it; of another size
    torch.testing.assert_close(model.head.loss(feats, samples)['map_loss'], 5 * (1 - m[1]).norm())


def test_a_map_loss_trains_towards_the_corrected_map():
    torch.manual_seed(0)
    model = MODELS.build(attention_branch_network(BACKBONE, 4, map_loss_weight=1.0))
    x, samples = batch()
    for sample in samples[:3]:
        sample.set_field((torch.arange(16) < 4).float().expand(16, 16), 'gt_attention_map')
    optimizer = torch.optim.SGD(model.neck.parameters(), lr=0.1, momentum=0.9)
    distances = []
    for _ in range(15):
        losses = model(x, samples, mode='loss')
        distances.append(losses['map_loss'].item())
        optimizer.zero_grad()
        losses['map_loss'].backward()
        optimizer.step()
    assert distances[-1] < 0.6 * distances[0]


def test_wrong_maps_and_weights_are_named():
    model = MODELS.build(attention_branch_network(BACKBONE, 4, map_loss_weight=1.0))
    x, samples = batch(2)
    samples[0].set_field(torch.ones(3, 4, 4), 'gt_attention_map')
    with pytest.raises(ValueError, match=r'gt_attention_map is .* not \(3, 4, 4\)'):
        model(x, samples, mode='loss')
    with pytest.raises(ValueError, match='map_loss_weight is at least 0.*-1'):
        MODELS.build(attention_branch_network(BACKBONE, 4, map_loss_weight=-1))
