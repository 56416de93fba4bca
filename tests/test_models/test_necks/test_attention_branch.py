from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch.utils.flop_counter import FlopCounterMode

from mmresattn.models import AttentionBranchNeck, attention_branch_network
from mmresattn.models.layers import attention_maps, edit_attention, record_attention

# The smallest of each family. In the last one even a stage has attention modules.
FAMILIES = {
    'resnet20': dict(type='CIFARResNet', depth=8, base_channels=4, stem_channels=4),
    'resnet110': dict(type='CIFARResNet', depth=44, base_channels=2, stem_channels=4),
    'imagenet': dict(type='ResNet', depth=18, base_channels=4, stem_channels=4),
    'imagenet-d': dict(type='ResNetV1d', depth=50, base_channels=4, stem_channels=4),
    'wrn': dict(type='CIFARWideResNet', depth=10, widen_factor=1),
    'densenet': dict(type='CIFARDenseNet', depth=10, growth_rate=2),
    'resnext': dict(type='CIFARResNeXt', depth=11, groups=2, width_per_group=4),
    'resattn': dict(
        type='ResidualAttentionNet', arch=dict(base='attention56-cifar', stem_channels=4, channels=(8, 8, 8))
    ),
}


def build(backbone, num_classes=5, init=False, **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(attention_branch_network(backbone, num_classes, **kwargs))
    if init:
        model.init_weights()
    return model


def liven(model):
    """Random statistics and affine weights of normalisations, which else are ones and zeros, in float64."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.normal_(tensor, std=0.2)
    model.double().eval()
    return model


def plain(backbone, num_classes=5, channels=None):
    """The classifier without attention."""
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=channels),
        )
    )


def images(n=2, size=32):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(
    ('backbone', 'classes', 'parameters', 'mega_macs', 'map_shape'),
    [
        (dict(type='CIFARResNet', depth=20), 10, 479_150, 93.5, (1, 16, 16)),
        (dict(type='CIFARResNet', depth=20), 100, 501_650, 97.7, (1, 16, 16)),
        (dict(type='CIFARResNet', depth=110), 100, 3_056_786, None, (1, 16, 16)),
        (dict(type='CIFARWideResNet'), 100, 64_475_666, 12_393, (1, 16, 16)),
        (dict(type='CIFARDenseNet'), 100, 1_122_498, None, (1, 8, 8)),
        (dict(type='CIFARResNeXt'), 100, 60_881_666, None, (1, 16, 16)),
        (dict(type='ResNet', depth=50), 1000, 43_584_866, 7_617, (1, 14, 14)),
        (dict(type='ResNet', depth=101), 1000, 62_576_994, None, (1, 14, 14)),
        (dict(type='ResNet', depth=152), 1000, 78_220_642, None, (1, 14, 14)),
    ],
    ids=lambda value: None if isinstance(value, (int, float, tuple)) else str(value),
)
def test_size_of_the_official_networks(backbone, classes, parameters, mega_macs, map_shape):
    """Parameters, multiply-adds (in millions, rounded as printed) and maps counted from the authors' code."""
    with torch.device('meta'):
        model = build(backbone, classes)
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


@pytest.mark.parametrize('name', FAMILIES)
def test_a_zero_map_leaves_the_baseline(name):
    """The cut backbone and the perception stage are the whole backbone, weight by weight."""
    model = liven(build(FAMILIES[name]))
    baseline = plain(FAMILIES[name], channels=model.head.in_channels).double()
    baseline.eval()
    weights = {
        **{f'backbone.{key}': value for key, value in model.backbone.state_dict().items()},
        **{f'backbone.{key}': value for key, value in model.head.stage.state_dict().items()},
        **{f'head.fc.{key}': value for key, value in model.head.fc.state_dict().items()},
    }
    baseline.load_state_dict(weights)  # strict
    x = images()
    with torch.no_grad():
        expected = baseline(x, mode='tensor')
        with edit_attention(model, {'neck.map': torch.zeros_like}):
            torch.testing.assert_close(model(x, mode='tensor'), expected, rtol=1e-12, atol=1e-12)
        assert (model(x, mode='tensor') - expected).abs().max() > 1e-3


@pytest.mark.parametrize('name', FAMILIES)
def test_every_family_trains_every_weight(name):
    model = build(FAMILIES[name], init=True)
    model.train()
    attended, scores, attention = model.extract_feat(images(3).float())
    assert attention.shape[1] == 1 and attention.shape[2:] == attended.shape[2:]
    # The branch keeps the size; the perception stage strides.
    assert model.neck.stage(attended).shape[2:] == attended.shape[2:]
    (model.head((attended,)).square().sum() + scores.square().sum()).backward()
    missing = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing


def test_worked_example_and_the_mechanism():
    """g = 2, M = 0.3: 2.6 with the residual, 0.6 without."""
    g = torch.full((1, 8, 4, 4), 2.0)
    for residual, expected in ((True, 2.6), (False, 0.6)):
        neck = build(FAMILIES['resnet20'], residual=residual).neck.eval()
        assert neck.stage.layer3[0].in_channels == 8
        with torch.no_grad(), edit_attention(neck, {'map': lambda m: torch.full_like(m, 0.3)}):
            attended, _, attention = neck((g,))
        torch.testing.assert_close(attended, torch.full_like(g, expected))
        assert (attention == 0.3).all()


def test_a_map_of_ones_doubles_the_features():
    model = liven(build(FAMILIES['resnet20']))
    with torch.no_grad():
        (g,) = model.backbone(images())
        with edit_attention(model, {'neck.map': torch.ones(1, 1, 2, 2)}):  # resized to the map's 16x16
            attended, _, _ = model.extract_feat(images())
    assert torch.equal(attended, 2 * g)


@pytest.mark.parametrize('kernel', [1, 3])
def test_the_branch_is_the_published_graph(kernel):
    """Against functions of PyTorch: no bias anywhere, no ReLU after the first normalisation, none on the scores."""
    neck = liven(build(FAMILIES['wrn'], map_kernel_size=kernel)).neck
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


def test_the_perception_loss_alone_trains_the_map():
    model = build(FAMILIES['resnet20'], init=True)
    with record_attention(model, grad=True) as maps:
        model(images().float(), mode='tensor').square().sum().backward(retain_graph=True)
        (by_map,) = torch.autograd.grad(model.head((model.extract_feat(images().float())[0],)).sum(), maps['neck.map'])
    assert by_map.abs().max() > 0
    assert model.neck.attention[0].weight.grad.abs().max() > 0
    assert model.neck.class_scores[0].weight.grad is None  # not on that way


def test_the_map_is_recorded_under_its_name():
    model = liven(build(FAMILIES['resattn']))
    assert attention_maps(model)['neck.map'].kind == 'spatial'
    with torch.no_grad(), record_attention(model) as maps:
        _, _, attention = model.extract_feat(images())
        model(images())
    assert torch.equal(maps['neck.map'], attention) and attention.shape == (2, 1, 16, 16)
    assert 0 < attention.min() and attention.max() < 1
    # Attention modules of the copied stage are maps of their own.
    assert {'neck.stage.stage3.attention1.map', 'head.stage.stage3.attention1.map'} <= set(maps)


@pytest.mark.parametrize('init_branch', [False, True])
def test_weights_of_a_plain_classifier_start_extractor_and_perception_stage(tmp_path, init_branch):
    backbone = FAMILIES['imagenet']
    baseline = liven(plain(backbone, channels=32)).float()
    torch.save(dict(state_dict=baseline.state_dict()), tmp_path / 'plain.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth'), prefix='backbone')
    model = build(dict(backbone, init_cfg=pretrained), init=True, init_branch=init_branch)

    weights = baseline.backbone.state_dict()
    loaded = {**model.backbone.state_dict(), **model.head.stage.state_dict()}
    assert loaded.keys() == weights.keys() and all(torch.equal(loaded[key], weights[key]) for key in weights)
    branch = model.neck.stage.state_dict()
    assert branch.keys() == model.head.stage.state_dict().keys()
    assert all(torch.equal(branch[key], weights[key]) for key in branch) == init_branch


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


def test_a_backbone_that_cannot_be_cut_is_named():
    with pytest.raises(ValueError, match='ConvNeXt cannot be cut before its last stage'):
        build(dict(type='ConvNeXt', arch='atto'))


@pytest.mark.parametrize('backbone', [
    dict(FAMILIES['resnet20'], num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,)),
    dict(type='ResidualAttentionNet', arch=dict(base='attention56-cifar', channels=(8,), strides=(1,), modules=(1,),
                                                poolings=(1,), units_after=(0,))),
])  # fmt: skip
def test_a_backbone_of_one_stage_is_named(backbone):
    with pytest.raises(ValueError, match=f'{backbone["type"]} has a single stage, so it cannot be cut'):
        build(backbone)


def test_a_backbone_for_large_images_alone():
    """It was looked at with an image of 64x64, which this one refuses."""
    arch = dict(base='attention56', stem_channels=4, channels=(8, 8, 8, 8), strides=(2, 2, 2, 4))
    model = build(
        dict(type='ResidualAttentionNet', arch=dict(arch, modules=(1, 1, 1, 1), poolings=(1, 1, 1, 1)))
    ).eval()
    assert model(torch.zeros(1, 3, 160, 160), mode='tensor').shape == (1, 5)
    with pytest.raises(ValueError, match='Features of 1x1 are too small: this attention module needs at least 2x2'):
        model(torch.zeros(1, 3, 64, 64), mode='tensor')  # the extractor would do with it


def test_a_single_value_is_named():
    model = build(FAMILIES['resnet20']).train()
    with pytest.raises(ValueError, match='single value a channel'):
        model(torch.zeros(1, 3, 2, 2), mode='tensor')
    assert model(torch.zeros(1, 3, 8, 8), mode='tensor').shape == (1, 5)


def test_freezing_past_the_cut_is_named():
    resnet18 = FAMILIES['imagenet']
    assert attention_branch_network(dict(resnet18, frozen_stages=3), 5)['backbone']['frozen_stages'] == 3
    with pytest.raises(ValueError, match='frozen_stages=4 of the ResNet .* at most frozen_stages=3'):
        attention_branch_network(dict(resnet18, frozen_stages=4), 5)


def test_even_map_convolutions_are_refused():
    with pytest.raises(ValueError, match='map_kernel_size is odd.*got 2'):
        AttentionBranchNeck(FAMILIES['resnet20'], 5, map_kernel_size=2)
    for field in ('map_kernel_size', 'num_classes'):
        with pytest.raises(ValueError, match=f'{field} is an integer of at least 1, not 0'):
            AttentionBranchNeck(FAMILIES['resnet20'], **{'num_classes': 5, field: 0})


def test_compiled_with_and_without_an_edit():
    model = liven(build(FAMILIES['resnet20']))
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    x = images()
    with torch.no_grad():
        unedited = model(x)
        torch.testing.assert_close(compiled(x), unedited)
        with edit_attention(model, {'neck.map': torch.zeros_like}):
            torch.testing.assert_close(compiled(x), model(x))
            assert not torch.allclose(compiled(x), unedited)
