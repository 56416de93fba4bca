import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample

from mmresattn.models.heads.pay_attention_head import PayAttentionHead
from mmresattn.models.layers import edit_attention, record_attention
from tests.conftest import ROOT

LABELS = [2, 0, 1]


def head(**kwargs):
    torch.manual_seed(0)
    made = PayAttentionHead(**{'num_classes': 4, 'in_channels': (3, 5), **kwargs}).double().eval()
    for activate in made.activate:
        torch.nn.init.uniform_(activate[0].weight, 0.5, 2)
        torch.nn.init.uniform_(activate[0].bias, -1, 1)
    return made


def features():
    torch.manual_seed(1)
    return torch.randn(3, 3).double(), torch.randn(3, 5).double()


def samples():
    return [DataSample().set_gt_label(label) for label in LABELS]


def activations(made):
    """In NumPy, batch normalisation with the statistics that it starts from."""
    for activate, x in zip(made.activate, features()):
        scale, shift = (p.detach().numpy() for p in (activate[0].weight, activate[0].bias))
        yield np.maximum(x.numpy() / np.sqrt(1 + 1e-5) * scale + shift, 0)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def linear(fc, x):
    return x @ fc.weight.detach().numpy().T + fc.bias.detach().numpy()


def test_concat():
    made = head()
    joined = np.concatenate(list(activations(made)), 1)
    logits = linear(made.fc[0], joined)
    assert np.allclose(made.pre_logits(features()).detach(), joined, rtol=1e-12)
    assert np.allclose(made(features()).detach(), logits, rtol=1e-12)
    expected = -log_softmax(logits)[range(3), LABELS].mean()
    assert made.loss(features(), samples())['loss'].item() == pytest.approx(expected, rel=1e-12)


def test_indep_is_the_sum_of_log_probabilities():
    made = head(combine='indep')
    levels = [log_softmax(linear(fc, x)) for fc, x in zip(made.fc, activations(made))]
    scores = made(features()).detach()
    assert len(made.fc) == 2 and np.allclose(scores, sum(levels), rtol=1e-12) and (scores < 0).all()
    assert made.pre_logits(features()).shape == (3, 8)
    # The negative log-likelihood of that sum, which is not normalised once more.
    assert made.loss(features(), samples())['loss'].item() == pytest.approx(-sum(levels)[range(3), LABELS].mean())
    product = np.exp(sum(levels))
    with torch.no_grad():
        predicted = made.predict(features())
    for sample, row in zip(predicted, product):
        assert np.allclose(sample.pred_score, row / row.sum()) and sample.pred_label.item() == row.argmax()


def test_findings_K6_2_sum_is_the_cross_entropy_of_added_scores():
    """As the authors' network of three levels; the sum of the levels' cross-entropies is another loss."""
    made, independent = head(combine='sum'), head(combine='indep')
    total = sum(linear(fc, x) for fc, x in zip(made.fc, activations(made)))
    assert np.allclose(made(features()).detach(), total, rtol=1e-12)
    loss = made.loss(features(), samples())['loss']
    assert loss.item() == pytest.approx(-log_softmax(total)[range(3), LABELS].mean(), rel=1e-12)
    assert loss.item() < independent.loss(features(), samples())['loss'].item()
    for sample, other in zip(made.predict(features()), independent.predict(features())):
        torch.testing.assert_close(sample.pred_score, other.pred_score)

    (into_bias,) = torch.autograd.grad(loss, made.fc[0].bias)
    probability = np.exp(log_softmax(total))
    probability[range(3), LABELS] -= 1
    assert np.allclose(into_bias, probability.mean(0), rtol=1e-12)
    for network in ('cifar10', 'cifar100'):
        config = Config.fromfile(ROOT / f'configs/pay_attention/vgg-att3-indep-pc_{network}.py')
        assert config.model.head.combine == 'sum'


def test_indep_with_scores_of_mixed_images():
    made = head(combine='indep')
    target = torch.tensor([[0.7, 0.3, 0, 0], [0, 0, 1, 0], [0.25, 0.25, 0.25, 0.25]]).double()
    mixed = [DataSample().set_gt_score(row) for row in target]
    expected = -(target * made(features())).sum(1).mean()
    assert made.loss(features(), mixed)['loss'].item() == pytest.approx(expected.item(), rel=1e-6)


def test_accuracy_is_that_of_all_levels_together():
    made = head(combine='indep', cal_acc=True)
    correct = (made(features()).argmax(1) == torch.tensor(LABELS)).double().mean().item()
    assert made.loss(features(), samples())['accuracy_top-1'][0].item() == pytest.approx(100 * correct)


def test_dropout_only_in_training():
    made, feats = head(dropout=0.3), features()
    assert [activate[2].p for activate in made.activate] == [0.3, 0.3]
    assert torch.equal(made(feats), made(feats))
    made.train()
    assert not torch.equal(made(feats), made(feats))


def test_parameters_of_the_authors_heads():
    def count(**kwargs):
        return sum(p.numel() for p in PayAttentionHead(**kwargs).parameters())

    assert count(num_classes=10, in_channels=(512,)) == 1024 + 5130
    assert count(num_classes=100, in_channels=(256, 512, 512)) == 512 + 2 * 1024 + 128_100
    assert count(num_classes=10, in_channels=(512, 512), combine='indep') == 2 * (1024 + 5130)


def classifier(**head):
    """The whole, small, as a config makes it."""
    torch.manual_seed(0)
    arch = dict(stages=([4], [('max', 2), 6]), tail=[('max', 2), 6], global_channels=6, gates=None)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=dict(type='PayAttentionNet', arch=arch, out_indices=(0, 1)),
                neck=dict(type='PayAttention', in_channels=(4, 6, 6), score='dp'),
                head=dict(type='PayAttentionHead', num_classes=3, in_channels=(4, 6), **head),
            )
        )
    model.init_weights()
    return model.eval()


@pytest.mark.parametrize('combine', ['concat', 'indep'])
def test_classifier(combine):
    model = classifier(combine=combine)
    images = torch.randn(4, 3, 8, 8)
    with record_attention(model) as maps:
        scores = model(images, mode='tensor')
    assert isinstance(scores, torch.Tensor) and scores.shape == (4, 3)
    assert {name: tuple(attention.shape) for name, attention in maps.items()} == {
        'neck.level1.map': (4, 1, 8, 8),
        'neck.level2.map': (4, 1, 4, 4),
    }
    with edit_attention(model, {name: torch.zeros_like for name in maps}):
        blind = model(images, mode='tensor')
    zeros = model.head((torch.zeros(1, 4), torch.zeros(1, 6)))  # nothing is gathered, whatever the image
    assert torch.allclose(blind, zeros.expand(4, 3)) and not torch.allclose(scores, blind)


def test_classifier_learns():
    """A bright spot anywhere in dark images; the loss falls to less than half within some steps."""
    model = classifier(dropout=0.0).train()
    images = 0.1 * torch.randn(24, 3, 8, 8)
    labels = torch.arange(24) % 3
    for i, label in enumerate(labels.tolist()):
        images[i, label, i % 8, (3 * i) % 8] += 4
    data = [DataSample().set_gt_label(label) for label in labels.tolist()]
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(40):
        loss = model.loss(images, data)['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(combine='mean'), "'concat', 'indep' or 'sum', not 'mean'"),
        (dict(num_classes=0), 'num_classes=0'),
        (dict(in_channels=()), r'in_channels=\(\)'),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        head(**kwargs)


@pytest.mark.parametrize('shapes', [[(1, 3)], [(1, 3), (1, 6)], [(1, 3), (1, 5, 2, 2)]])
def test_features_that_do_not_fit_are_named(shapes):
    with pytest.raises(ValueError, match=r'Expected vectors \(N, C\) of \[3, 5\] channels.*got \[\(1, 3\)'):
        head()([torch.zeros(*shape).double() for shape in shapes])
