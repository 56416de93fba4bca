import pytest
import torch
import torch.nn.functional as F
from mmpretrain.evaluation import MultiTasksMetric
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmresattn.compat.meta_device import LinspaceOnCPU
from mmresattn.models.layers import attention_maps, edit_attention, record_attention

BACKBONE = dict(type='CIFARResNet', depth=8, base_channels=4, stem_channels=4)
TASKS = ['Bald', 'Male', 'Smiling']


def network(backbone, num_classes, pool='max', **head):
    return dict(
        type='AttentionBranchNetwork',
        backbone=backbone,
        neck=dict(type='MultiTaskAttentionBranchNeck', pool=pool),
        head=dict(type='MultiTaskAttentionBranchHead', num_classes=num_classes, **head),
    )


def build(**kwargs):
    """In float64, with random statistics and affine weights of normalisations."""
    model = MODELS.build(network(BACKBONE, 3, **kwargs))
    torch.manual_seed(0)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.normal_(tensor, std=0.2)
    for fc in model.head.fc:
        torch.nn.init.normal_(fc.weight)
    return model.double().eval()


def images(n=4):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def samples(n=4):
    truth = torch.rand(n, 3, generator=torch.Generator().manual_seed(3)).round()
    return truth, [DataSample().set_gt_score(score) for score in truth]


def test_size_of_the_official_network():
    """ResNet-101 without its classifier, its last stage again, 40 maps and 40 pairs of scores."""
    with torch.device('meta'), LinspaceOnCPU():
        model = MODELS.build(network(dict(type='ResNet', depth=101), 40))
        assert sum(p.numel() for p in model.parameters()) == 42_500_160 + 14_964_736 + 2048 * 40 + 40 * (2048 * 2 + 2)
        g, scores, maps = model.eval().extract_feat(torch.empty(1, 3, 224, 224))
        assert g.shape == (1, 1024, 14, 14) and maps.shape == (1, 40, 14, 14) and scores.shape == (1, 40)


@pytest.mark.parametrize('pool', ['max', 'avg'])
@pytest.mark.parametrize('residual', [False, True])
def test_the_network_is_the_published_graph(pool, residual):
    model = build(pool=pool, residual=residual)
    with torch.no_grad():
        (g,) = model.backbone(images())  # N, 8, 8, 8
        weight = model.neck.attention.weight[..., 0, 0]
        maps = torch.einsum('tc,nchw->nthw', weight, model.neck.stage(g))
        assert maps.min() < 0 and maps.max() > 1  # raw
        expected = []
        for t in range(3):
            x = g * maps[:, t, None] + (g if residual else 0)
            hidden = model.head.stage.layer3(x).flatten(2).mean(2)  # N, 16
            expected.append(F.linear(hidden, model.head.fc[t].weight, model.head.fc[t].bias).softmax(1)[:, 1])
        scores = model(images(), mode='tensor')
        torch.testing.assert_close(scores.sigmoid(), torch.stack(expected, 1))
        attention = maps.flatten(2).max(2).values if pool == 'max' else maps.flatten(2).mean(2)
        torch.testing.assert_close(model.extract_feat(images())[1], attention)


def test_the_loss_is_the_published_one():
    """Sigmoid cross-entropy of the attention branch, plus the mean over tasks of softmax cross-entropies."""
    model = build()
    truth, data_samples = samples()
    losses = model(images(), data_samples, mode='loss')
    with torch.no_grad():
        feats = model.extract_feat(images())
        hidden = model.head.pre_logits(feats)
        perception = sum(F.cross_entropy(fc(hidden[:, t]), truth[:, t].long()) for t, fc in enumerate(model.head.fc))
        p = feats[1].sigmoid()
        attention = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
    assert losses.keys() == {'perception_loss', 'attention_loss'}
    # MMPretrain reduces in single precision.
    for name, expected in {'perception_loss': perception / 3, 'attention_loss': attention}.items():
        torch.testing.assert_close(losses[name].double(), expected, rtol=1e-6, atol=1e-6)


def test_the_shared_stage_runs_once_a_task_and_keeps_one_pass():
    """Without gradients nothing of a pass is alive in the next one; with checkpoints autograd keeps what went in."""
    model = build()
    batches = []
    handle = model.head.stage.register_forward_hook(lambda module, args, out: batches.append(args[0].shape[0]))
    with torch.no_grad():
        model(images(), mode='tensor')
    handle.remove()
    assert batches == [4, 4, 4]

    gradients, kept = [], []
    for with_cp in (False, True):
        model.head.with_cp = with_cp
        feats = [feat.detach().requires_grad_() for feat in model.extract_feat(images())]
        tensors = {}

        def pack(x, tensors=tensors):
            tensors[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            scores = model.head(feats)
        kept.append(sum(tensors.values()))
        model.zero_grad()
        scores.square().sum().backward()
        gradients.append([feats[0].grad, feats[2].grad, *(p.grad.clone() for p in model.head.parameters())])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize('with_cp', [False, True])
def test_every_weight_trains(with_cp):
    model = build(with_cp=with_cp).train()
    losses = model(images(), samples()[1], mode='loss')
    model.parse_losses(losses)[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_every_task_has_a_map_of_its_own_to_see_and_edit():
    model = build()
    assert list(attention_maps(model)) == ['neck.maps.0', 'neck.maps.1', 'neck.maps.2']
    with torch.no_grad(), record_attention(model) as recorded:
        scores = model(images())
        maps = model.extract_feat(images())[2]
    for t in range(3):
        assert torch.equal(recorded[f'neck.maps.{t}'], maps[:, t : t + 1])
    with torch.no_grad(), edit_attention(model, {'neck.maps.1': torch.zeros_like}):
        edited = model(images())
    assert torch.equal(edited[:, [0, 2]], scores[:, [0, 2]])
    assert (edited[:, 1] == edited[0, 1]).all() and not torch.allclose(edited[:, 1], scores[:, 1])


def test_predictions_and_the_accuracy_of_each_task_and_of_all():
    model = build(tasks=TASKS)
    truth, data_samples = samples(9)
    with torch.no_grad():
        feats = model.extract_feat(images(9))
        scores = model.head(feats)
        predictions = model(images(9), data_samples, mode='predict')
    hits = (scores > 0) == truth.bool()
    assert 0 < hits.double().mean() < 1
    for sample, score in zip(predictions, scores):
        torch.testing.assert_close(sample.pred_score, score.sigmoid())
        assert sample.pred_label.tolist() == (score > 0).nonzero().flatten().tolist()
    metric = MultiTasksMetric({name: [dict(type='Accuracy')] for name in ['all_tasks', 'attention_branch', *TASKS]})
    metric.process(None, [sample.to_dict() for sample in predictions])
    expected = {f'{task}_accuracy/top1': hits[:, t].double().mean().item() for t, task in enumerate(TASKS)}
    expected['all_tasks_accuracy/top1'] = sum(expected.values()) / 3
    expected['attention_branch_accuracy/top1'] = ((feats[1] > 0) == truth.bool()).double().mean().item()
    assert metric.evaluate(9) == {key: pytest.approx(100 * value) for key, value in expected.items()}
    (alone,) = model(images(1), mode='predict')
    assert alone.Male.pred_label.shape == (1,) and 'gt_label' not in alone.Male


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="pool must be one of .*'max', 'avg'.*'sum'"):
        build(pool='sum')
    with pytest.raises(ValueError, match='tasks must be 3 different names'):
        build(tasks=['Bald', 'Male', 'Male'])
