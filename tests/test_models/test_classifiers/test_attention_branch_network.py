from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.evaluation import Accuracy, MultiTasksMetric
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.utils.flop_counter import FlopCounterMode

from mmresattn.compat.meta_device import LinspaceOnCPU
from mmresattn.models.layers import attention_maps, edit_attention, record_attention
from mmresattn.weights import CheckpointError, record
from mmresattn.weights.fitting import load_weights
from mmresattn.weights.record import KEY
from tests.conftest import check_onnx

# Small networks of every family, MMPretrain's, this package's and timm's.
BACKBONES = {
    'ResNet': dict(type='ResNet', depth=18, base_channels=4, stem_channels=4),
    'ResNetV1d': dict(type='ResNetV1d', depth=50, base_channels=4, stem_channels=4),
    'RegNet': dict(type='RegNet', arch=dict(w0=8, wa=8.0, wm=1.6, depth=4, group_w=8, bot_mul=1.0)),
    'ConvNeXt': dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[4, 4, 6, 8])),
    'EfficientNet': dict(type='EfficientNet', arch='es'),
    'MobileNetV2': dict(type='MobileNetV2', widen_factor=0.25),
    'MobileNetV3': dict(type='MobileNetV3', arch='small_050'),
    'timm resnet': dict(type='TIMMBackbone', model_name='test_resnet'),
    'timm efficientnet': dict(type='TIMMBackbone', model_name='test_efficientnet'),
    'timm convnext': dict(type='TIMMBackbone', model_name='test_convnext'),
    'AttentionResNet': dict(
        type='AttentionResNet',
        depth=18,
        base_channels=4,
        stem_channels=4,
        attention=dict(type='SqueezeExcitation', ratio=2),
    ),
    'CIFARResNet': dict(type='CIFARResNet', depth=8, base_channels=4, stem_channels=4),
    'CIFARResNeXt': dict(type='CIFARResNeXt', depth=11, groups=2, width_per_group=4),
    'CIFARWideResNet': dict(type='CIFARWideResNet', depth=10, widen_factor=1, drop_rate=0.0),
    'CIFARDenseNet': dict(type='CIFARDenseNet', depth=10, growth_rate=2),
    'ResidualAttentionNet': dict(
        type='ResidualAttentionNet',
        arch=dict(base='attention56-cifar', channels=(8, 8, 8), modules=(0, 0, 1), poolings=(1, 1, 1), t=1),
    ),
}
RESNET = BACKBONES['CIFARResNet']
TIMM = [name for name in BACKBONES if name.startswith('timm')]


def build(backbone, head=None, init=False, **kwargs):
    torch.manual_seed(0)
    head = dict(type='AttentionBranchHead', num_classes=5, **(head or {}))
    model = MODELS.build(dict(type='AttentionBranchNetwork', backbone=backbone, head=head, **kwargs))
    if init:
        model.init_weights()
    return model


def liven(model):
    """Random statistics and affine weights of normalisations, otherwise ones and zeros, in float64."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.normal_(tensor, std=0.2)
    model.double().eval()
    return model


def plain(backbone, channels):
    """The classifier without attention."""
    neck = None if backbone['type'] == 'ConvNeXt' else dict(type='GlobalAveragePooling')
    head = dict(type='LinearClsHead', num_classes=5, in_channels=channels)
    return MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head))


def images(n=2, size=32):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def labels(n=2):
    return [DataSample().set_gt_label(i % 4) for i in range(n)]


@pytest.mark.parametrize('name', BACKBONES)
def test_any_backbone(name, tmp_path):
    """Fine-tuned from its plain checkpoint: equal before the cut and with a zero map, all of it trained, in ONNX."""
    if name in TIMM:
        pytest.importorskip('timm')
    backbone = BACKBONES[name]
    model = build(backbone, init_branch=True)
    baseline = liven(plain(backbone, model.head.in_channels))
    checkpoint = dict(state_dict=baseline.state_dict(), meta={KEY: record(baseline)})
    load_weights(model.double(), checkpoint, 'plain.pth', fine_tune=True)
    model.eval()
    x = images(size=32 if name.startswith(('CIFAR', 'Residual')) else 64)
    before = []
    first = baseline.backbone.get_submodule(model.head.stage.names[0])
    hook = first.register_forward_pre_hook(lambda module, args: before.append(args[0]))
    with torch.no_grad(), record_attention(model) as maps:
        expected = baseline(x)
        hook.remove()
        (g,) = before
        assert torch.equal(model.backbone(x)[-1], g)
        scores = model(x)
        assert (
            maps['neck.map'].shape == (2, 1, *g.shape[2:]) and 0 < maps['neck.map'].min() < maps['neck.map'].max() < 1
        )
        with edit_attention(model, {'neck.map': torch.zeros_like}):
            torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)
        assert (scores - expected).abs().max() > 1e-6
        # The branch keeps the size and starts from the same weights; the perception branch downsamples, or is dense.
        assert model.neck.stage(g).shape[2:] == g.shape[2:]
        assert name == 'CIFARDenseNet' or model.head.stage(g).shape[2] < g.shape[2]
    model.train()
    model.parse_losses(model(x, labels(), mode='loss'))[0].backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    check_onnx(liven(model), x, tmp_path / 'abn.onnx')


@pytest.mark.parametrize(
    ('backbone', 'classes', 'parameters', 'mega_macs', 'map_shape'),
    [
        (dict(type='CIFARResNet', depth=20), 10, 479_150, 93.5, (1, 16, 16)),
        (dict(type='CIFARWideResNet'), 100, 64_475_666, 12_393, (1, 16, 16)),
        (dict(type='ResNet', depth=50), 1000, 43_584_866, 7_617, (1, 14, 14)),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else None,
)
def test_size_of_the_official_networks(backbone, classes, parameters, mega_macs, map_shape):
    """Parameters, multiply-adds (in millions, rounded as printed) and maps counted from the authors' code."""
    with torch.device('meta'), LinspaceOnCPU():
        head = dict(type='AttentionBranchHead', num_classes=classes)
        model = MODELS.build(dict(type='AttentionBranchNetwork', backbone=backbone, head=head))
        model.eval()
        assert sum(p.numel() for p in model.parameters()) == parameters
        size = 224 if classes == 1000 else 32
        counter = FlopCounterMode(display=False)
        with counter if mega_macs else nullcontext():
            attended, scores, attention = feats = model.extract_feat(torch.empty(1, 3, size, size))
            assert model.head(feats).shape == scores.shape == (1, classes)
    assert attention.shape == (1, *map_shape) and attended.shape[2:] == attention.shape[2:]
    if mega_macs:
        assert counter.get_total_flops() / 2e6 == pytest.approx(mega_macs, abs=0.05 if mega_macs < 1000 else 0.5)


def test_worked_example_and_the_mechanism():
    """g = 2, M = 0.3: 2.6 with the residual, 0.6 without."""
    g = torch.full((1, 8, 4, 4), 2.0)
    for residual, expected in ((True, 2.6), (False, 0.6)):
        neck = build(RESNET, neck=dict(residual=residual)).neck.eval()
        with torch.no_grad(), edit_attention(neck, {'map': lambda m: torch.full_like(m, 0.3)}):
            attended, _, attention = neck((g,))
        torch.testing.assert_close(attended, torch.full_like(g, expected))
        assert (attention == 0.3).all()


@pytest.mark.parametrize('kernel', [1, 3])
def test_the_branch_is_the_published_graph(kernel):
    """Against functions of PyTorch: no bias anywhere, no ReLU after the first normalisation, none on the scores."""
    neck = liven(build(BACKBONES['CIFARWideResNet'], neck=dict(map_kernel_size=kernel))).neck
    weights = neck.state_dict()
    assert {key for key in weights if key.endswith('bias')} == {
        key.replace('running_mean', 'bias') for key in weights if key.endswith('running_mean')
    }

    def norm(x, name):
        mean, var, weight, bias = (
            weights[f'{name}.{key}'][:, None, None] for key in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    g = torch.randn(2, 32, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        x = neck.stage(g)
        assert (x < 0).any()  # the raw sum of pre-activation units: their closing normalisation is not copied
        x = F.conv2d(norm(x, 'norm'), weights['class_maps.0.weight']).flatten(2)[..., None]
        x = norm(x, 'class_maps.1.0').clamp(min=0).view(2, 5, 6, 6)
        attention = norm(F.conv2d(x, weights['attention.0.weight'], padding=kernel // 2), 'attention.1').sigmoid()
        scores = torch.einsum('kc,nchw->nk', weights['class_scores.0.weight'][..., 0, 0], x) / 36
        got = neck((None, g))
    for value, expected in zip(got, (g * (1 + attention), scores, attention)):
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('attention', [None, 'NonLocalAttention', 'AttentionAugmentedConv', 'masks'])
def test_a_stage_at_stride_one_is_the_stage_that_the_backbone_builds_at_stride_one(attention):
    """Poolings within attention layers and masks stay."""
    if attention == 'masks':
        backbone, strides, last = BACKBONES['ResidualAttentionNet'], (1, 2, 1), 'stage3'
    else:
        fields = dict(
            NonLocalAttention=dict(sub_sample=True), AttentionAugmentedConv=dict(heads=2, upsilon=0.25, size=4)
        )
        layer = attention and dict(type=attention, stages=(False, False, False, True), **fields[attention])
        backbone = dict(type='AttentionResNet', depth=18, base_channels=8, stem_channels=4, attention=layer)
        strides, last = (1, 2, 2, 1), 'layer4'
    model = liven(build(backbone)).float()
    at_one = MODELS.build(dict(backbone, strides=strides)).get_submodule(last)
    at_one.load_state_dict({k.removeprefix(f'{last}.'): v for k, v in model.neck.stage.state_dict().items()})
    g = torch.randn(1, *model.head.stage.in_shape[1:2], 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(model.neck.stage.eval()(g), at_one.eval()(g))


def test_the_perception_loss_alone_trains_the_map():
    model = build(RESNET, init=True)
    with record_attention(model, grad=True) as maps:
        scores = model(images().float())
        (by_map,) = torch.autograd.grad(scores.sum(), maps['neck.map'], retain_graph=True)
        scores.square().sum().backward()
    assert by_map.abs().max() > 0
    assert model.neck.attention[0].weight.grad.abs().max() > 0
    assert model.neck.class_scores[0].weight.grad is None  # not on that path


def test_attention_modules_of_the_stages_are_maps_too():
    maps = attention_maps(build(BACKBONES['ResidualAttentionNet']))
    assert maps['neck.map'].kind == 'spatial'
    assert {'neck.stage.stage3.attention1.map', 'head.stage.stage3.attention1.map'} <= set(maps)


@pytest.mark.parametrize('init_branch', [False, True])
def test_weights_of_a_plain_classifier_start_extractor_and_perception_stage(tmp_path, init_branch):
    backbone = BACKBONES['ResNet']
    baseline = liven(plain(backbone, 32)).float()
    torch.save(dict(state_dict=baseline.state_dict()), tmp_path / 'plain.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth'), prefix='backbone')
    model = build(dict(backbone, init_cfg=pretrained), init=True, init_branch=init_branch)
    weights = baseline.backbone.state_dict()
    loaded = {**model.backbone.state_dict(), **model.head.stage.state_dict()}
    assert loaded.keys() == weights.keys() and all(torch.equal(loaded[key], weights[key]) for key in weights)
    branch = model.neck.stage.state_dict()
    assert branch.keys() == model.head.stage.state_dict().keys()
    assert all(torch.equal(branch[key], weights[key]) for key in branch) == init_branch

    # The whole model by MMPretrain's own argument, from its own checkpoint and from the plain one.
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'abn.pth')
    again = build(backbone, init=True, pretrained=str(tmp_path / 'abn.pth'))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    again = build(backbone, init=True, pretrained=str(tmp_path / 'plain.pth'))
    assert torch.equal(again.head.fc.weight, baseline.head.fc.weight)
    assert torch.equal(again.head.stage.layer4[1].conv2.weight, baseline.backbone.layer4[1].conv2.weight)


def test_a_plain_checkpoint_of_other_strides_is_refused():
    """The branch strides otherwise than the file by design, the rest of the network must not."""
    for strides, layer in (((1, 1, 2), 'backbone.layer2.0.conv1'), ((1, 2, 1), 'head.stage.layer3.0.conv1')):
        baseline = plain(dict(RESNET, strides=strides), 32)
        checkpoint = dict(state_dict=baseline.state_dict(), meta={KEY: record(baseline)})
        with pytest.raises(CheckpointError, match=f'not for the same network: {layer} has stride 1 in the file'):
            load_weights(build(RESNET, cut='layer3'), checkpoint, 'plain.pth', fine_tune=True)


@pytest.mark.parametrize('zero', [False, True])
def test_stages_start_as_in_their_backbone(zero):
    model = build(dict(type='ResNet', depth=18, zero_init_residual=zero), init=True)
    for stage in (model.neck.stage.layer4, model.head.stage.layer4):
        assert (stage[1].norm2.weight == (0 if zero else 1)).all()
        conv = stage[1].conv1.weight  # 512 out, 3x3
        assert conv.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert not torch.equal(model.neck.stage.layer4[1].conv1.weight, model.head.stage.layer4[1].conv1.weight)
    conv = model.neck.class_maps[0].weight  # 5 out
    assert conv.std().item() == pytest.approx((2 / 5) ** 0.5, rel=0.05)
    assert model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_the_cut_can_be_named():
    model = build(BACKBONES['ResNet'], cut='layer3').eval()
    attended, _, attention = model.extract_feat(images(size=64).float())
    assert attention.shape == (2, 1, 8, 8) and attended.shape[1] == 8
    assert model.head.stage.names == ['layer3.0', 'layer3.1', 'layer4.0', 'layer4.1']
    assert model.neck.stage(attended).shape == (2, 32, 8, 8)
    with pytest.raises(ValueError, match='ResNet cannot be cut before layer5. It can be cut before one of .*layer4.1'):
        build(BACKBONES['ResNet'], cut='layer5')


def test_backbones_that_cannot_be_cut_are_named():
    with pytest.raises(ValueError, match='VisionTransformer cannot be cut before its last downsampling'):
        build(dict(type='VisionTransformer', arch=dict(embed_dims=8, num_layers=1, num_heads=1,
                                                       feedforward_channels=8)))  # fmt: skip
    with pytest.raises(ValueError, match='CIFARResNet cannot be cut before its last downsampling'):
        build(dict(RESNET, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,)))


@pytest.mark.parametrize('name', ['ResNet', 'CIFARWideResNet', 'ResidualAttentionNet'])
def test_freezing_past_the_cut_is_named(name):
    last = 3 if name == 'ResNet' else 2
    model = build(dict(BACKBONES[name], frozen_stages=last)).train()
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert all(p.requires_grad for part in (model.neck, model.head) for p in part.parameters())
    with pytest.raises(ValueError, match=f'frozen_stages of {name} freezes .*{last + 1}'):
        build(dict(BACKBONES[name], frozen_stages=last + 1))


def test_layer_depths_are_those_of_the_backbone():
    model = build(BACKBONES['ResidualAttentionNet'])
    for name in ('backbone.stage3.unit1', 'head.stage.stage3.unit1', 'neck.stage.stage3.unit1'):
        assert model.get_layer_depth(f'{name}.conv1.weight') == model.backbone.get_layer_depth('stage3.unit1.x')
    assert model.get_layer_depth('neck.norm.weight') == model.get_layer_depth('head.fc.weight')


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match='map_kernel_size must be odd.*got 2'):
        build(RESNET, neck=dict(map_kernel_size=2))
    with pytest.raises(ValueError, match='loss_weight must be at least 0.*-1'):
        build(RESNET, head=dict(map_loss=dict(type='AttentionMapLoss', loss_weight=-1)))


def test_compiled_with_and_without_an_edit():
    model = liven(build(RESNET))
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    x = images()
    with torch.no_grad():
        unedited = model(x)
        torch.testing.assert_close(compiled(x), unedited)
        with edit_attention(model, {'neck.map': torch.zeros_like}):
            torch.testing.assert_close(compiled(x), model(x))
            assert not torch.allclose(compiled(x), unedited)


@pytest.mark.parametrize('soft', [False, True])
def test_the_loss_is_the_sum_of_both_cross_entropies(soft):
    options = dict(loss=dict(type='CrossEntropyLoss', use_soft=True)) if soft else dict(cal_acc=True, topk=(1, 2))
    model = build(RESNET, head=options, init=True).eval()
    x = images(6).float()
    targets = torch.rand(6, 5).softmax(1) if soft else torch.arange(6) % 4
    samples = [DataSample().set_gt_score(t) if soft else DataSample().set_gt_label(t) for t in targets]
    losses = model(x, samples, mode='loss')
    feats = model.extract_feat(x)
    expected = {'perception': model.head(feats), 'attention': feats[1]}
    for branch, scores in expected.items():
        torch.testing.assert_close(losses[f'{branch}_loss'], F.cross_entropy(scores, targets))
        if not soft:
            correct = (scores.argmax(1) == targets).double().mean() * 100
            assert losses[f'{branch}_accuracy_top-1'][0].item() == pytest.approx(correct.item())
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(total, sum(F.cross_entropy(scores, targets) for scores in expected.values()))


def test_predictions_of_both_branches_and_their_accuracies():
    model = build(RESNET, init=True).eval()
    x, truth = images(6).float(), torch.arange(6) % 4
    with torch.no_grad():
        feats = model.extract_feat(x)
        scores = dict(perception=model.head(feats), attention=feats[1])
        samples = model(x, labels(6), mode='predict')
        (alone,) = model(x[:1], mode='predict')
    assert 'gt_label' not in alone.attention_branch
    for i, sample in enumerate(samples):
        torch.testing.assert_close(sample.pred_score, scores['perception'][i].softmax(0))
        torch.testing.assert_close(sample.attention_branch.pred_score, scores['attention'][i].softmax(0))
        assert sample.attention_branch.pred_label.item() == scores['attention'][i].argmax()
    samples = [sample.to_dict() for sample in samples]  # as MMEngine hands them to metrics
    metrics = (Accuracy(topk=(1, 2)), MultiTasksMetric(dict(attention_branch=[dict(type='Accuracy', topk=(1, 2))])))
    got = {}
    for metric in metrics:
        metric.process(None, samples)
        got.update(metric.evaluate(6))
    for branch, prefix in (('perception', 'accuracy'), ('attention', 'attention_branch_accuracy')):
        for k in (1, 2):
            hits = (scores[branch].topk(k).indices == truth[:, None]).any(1).double().mean() * 100
            assert got[f'{prefix}/top{k}'] == pytest.approx(hits.item())


def test_a_map_loss_trains_towards_the_corrected_map():
    model = build(RESNET, head=dict(map_loss=dict(type='AttentionMapLoss')), init=True)
    x, samples = images(6).float(), labels(6)
    for sample in samples[:3]:
        sample.set_field((torch.arange(16) < 4).float().expand(16, 16), 'gt_attention_map')
    optimizer = torch.optim.SGD(model.neck.parameters(), lr=0.1, momentum=0.9)
    distances = []
    for _ in range(15):
        losses = model(x, samples, mode='loss')
        assert losses.keys() == {'perception_loss', 'attention_loss', 'map_loss'}
        distances.append(losses['map_loss'].item())
        optimizer.zero_grad()
        losses['map_loss'].backward()
        optimizer.step()
    assert distances[-1] < 0.6 * distances[0]
