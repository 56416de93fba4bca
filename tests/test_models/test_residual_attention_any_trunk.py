import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

import mmresattn  # noqa: F401
from mmresattn.models.layers import edit_attention, record_attention

SMALL = dict(stem_channels=8, base_channels=8)
TRUNKS = {  # config, and the first block of each run
    'resnet18': (dict(type='ResNet', depth=18, out_indices=(1, 3), **SMALL), 'layer1.0 layer2.1 layer3.1'),
    'resnet50': (dict(type='ResNet', depth=50, **SMALL), 'layer1.1 layer2.1 layer3.1'),
    'regnet': (
        dict(type='RegNet', arch=dict(w0=8, wa=8, wm=2.0, group_w=8, depth=6, bot_mul=1.0)),
        'layer3.1',  # the only run, so it has a mask although it has the size of the last features
    ),
    'convnext': (
        dict(type='ConvNeXt', arch=dict(depths=[2, 2, 3], channels=[8, 16, 24]), out_indices=(0, 2)),
        'stages.0.0 stages.1.0',
    ),
    'efficientnet': (dict(type='EfficientNet', arch='b0'), 'layers.2.1 layers.3.1 layers.4.1 layers.4.4'),
    'mobilenet_v2': (dict(type='MobileNetV2', widen_factor=0.35), 'layer2.1 layer3.1 layer4.1 layer5.1'),
    'mobilenet_v3': (
        dict(type='MobileNetV3', arch='small_075', out_indices=(5, 12)),
        'layer3 layer5 layer6 layer8',  # layer5 is an output, so its run ends there
    ),
    'cifar': (dict(type='CIFARResNet', depth=20), 'layer1.0 layer2.1'),
    'timm-efficientnet': (
        dict(type='TIMMBackbone', model_name='tf_efficientnet_lite0', features_only=True, out_indices=(2, 4)),
        'timm_model.blocks.1.1 timm_model.blocks.2.1 timm_model.blocks.3.1 timm_model.blocks.4.1',
    ),
    'timm-regnet': (dict(type='TIMMBackbone', model_name='regnetx_002'), 'timm_model.s3.b2'),
    'timm-convnext': (
        dict(type='TIMMBackbone', model_name='convnext_atto'),
        'timm_model.stages.0.blocks.0 timm_model.stages.1.blocks.0 timm_model.stages.2.blocks.0',
    ),
}


def build(trunk, **options):
    return MODELS.build(dict(type='ResidualAttention', trunk=trunk, **options))


def random_plain(trunk):
    """The plain backbone, with random statistics."""
    plain = MODELS.build({'_scope_': 'mmpretrain', **trunk})
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    plain.eval()
    return plain


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('name', TRUNKS)
def test_any_trunk_keeps_its_outputs_and_every_weight_learns(name, images):
    trunk, first_blocks = TRUNKS[name]
    if trunk['type'] == 'TIMMBackbone':
        pytest.importorskip('timm')
    torch.manual_seed(0)
    plain = random_plain(trunk)
    model = build(trunk)
    assert model.attention_modules == [f'trunk.{name}' for name in first_blocks.split()]
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)  # under their own names
    assert not unexpected and all('.mask.' in name for name in missing)
    model.eval()
    with torch.no_grad(), record_attention(model) as maps:
        outputs, expected = model(images), plain(images)
    assert len(outputs) == len(expected)
    assert all(torch.equal(output, other) for output, other in zip(outputs, expected))
    assert list(maps) == [f'trunk.{name}.map' for name in first_blocks.split()]
    assert all((mask == 0.5).all() for mask in maps.values())

    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # in the first step the last convolution of each mask learns alone
        optimizer.zero_grad()
        sum(output.square().mean() for output in model(images)).backward()
        optimizer.step()
    unused = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    plain.train()
    sum(output.square().mean() for output in plain(images)).backward()
    unused_by_plain = {name for name, weight in plain.named_parameters() if weight.grad is None}
    assert {model.plain_names.get(name, name) for name in unused} <= unused_by_plain


def test_output_is_the_formula_of_the_paper(images):
    trunk, _ = TRUNKS['resnet18']
    model = build(trunk).double()
    model.init_weights()
    for name in model.attention_modules:
        nn.init.normal_(model.get_submodule(name).mask.linear[-1].weight)
    model.eval()
    module = model.get_submodule('trunk.layer2.1')
    x = torch.randn(2, 16, 8, 8, dtype=torch.double)
    with torch.no_grad():
        mask, blocks = module.mask(x).sigmoid(), module.trunk(x)
        torch.testing.assert_close(module(x), (1 + mask) * blocks / 1.5, rtol=1e-12, atol=0)
        with edit_attention(model, {'trunk.layer2.1.map': torch.zeros_like}):
            torch.testing.assert_close(module(x), blocks / 1.5, rtol=1e-12, atol=0)


@pytest.mark.parametrize('attention', ['mixed', 'spatial'])
def test_other_activations_start_with_equal_outputs(attention, images):
    trunk, _ = TRUNKS['resnet18']
    plain, model = random_plain(trunk), build(trunk, attention=attention, poolings=(2, None, 0, 1), mask_width=0.5)
    model.load_state_dict(plain.state_dict(), strict=False)
    model.eval()
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(images), plain(images)))
    assert model.attention_modules == ['trunk.layer1.0', 'trunk.layer3.1', 'trunk.layer4.1']


def test_starts_from_a_checkpoint_of_the_plain_classifier(images, tmp_path):
    trunk = {**TRUNKS['resnet50'][0], 'zero_init_residual': False}
    plain = random_plain(trunk)
    weights = {f'backbone.{name}': weight for name, weight in plain.state_dict().items()}
    torch.save(dict(state_dict=weights), tmp_path / 'plain.pth')
    for kind in ('ClassifierWeights', 'Pretrained'):
        init = dict(type=kind, checkpoint=str(tmp_path / 'plain.pth'), prefix='backbone.')
        model = build({**trunk, 'init_cfg': init})
        model.init_weights()
        model.eval()
        with torch.no_grad():
            assert torch.equal(model(images)[0], plain(images)[0])


def test_frozen_trunk_with_its_norms(images):
    trunk, _ = TRUNKS['resnet18']
    model = build(trunk, freeze_trunk=True)
    model.init_weights()
    model.train()
    assert {name.split('.mask.')[0] for name, weight in model.named_parameters() if weight.requires_grad} == set(
        model.attention_modules
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(output.square().mean() for output in model(images)).backward()
        optimizer.step()
    for name, tensor in model.state_dict().items():
        assert ('.mask.' in name) == (not torch.equal(tensor, before[name])), name


def test_compiled_and_copied(images):
    model = build(dict(type='ConvNeXt', arch=dict(depths=[2, 1], channels=[4, 8]), out_indices=(1,)))
    model.init_weights()
    nn.init.normal_(model.get_submodule('trunk.stages.0.0').mask.linear[-1].weight)
    model.eval()
    with torch.no_grad():
        expected = model(images)[0]
        assert torch.equal(copy.deepcopy(model)(images)[0], expected)
        assert torch.equal(torch.compile(model, backend='eager', fullgraph=True)(images)[0], expected)


def test_masks_are_as_deep_as_their_blocks():
    model = build(TRUNKS['resnet50'][0])
    depths = {
        'backbone.trunk.conv1.weight': 0,
        'backbone.trunk.layer2.0.conv1.weight': 2,
        'backbone.trunk.layer2.1.trunk.2.conv1.weight': 3,
        'backbone.trunk.layer2.1.mask.linear.1.weight': 3,
        'head.fc.weight': 7,
    }
    assert {name: model.get_layer_depth(name, 'backbone.')[0] for name in depths} == depths


def test_errors_say_what_fits(images):
    resnet = TRUNKS['resnet18'][0]
    with pytest.raises(ValueError, match='VGG has no residual blocks.*blocks found: none.*blocks='):
        build(dict(type='VGG', depth=11))
    with pytest.raises(ValueError, match=r'one number \(or None\) for each of the 4 runs .*layer1.0.*\(3, 2\) does'):
        build(resnet, poolings=(3, 2))
    with pytest.raises(ValueError, match="attention is 'mixed' or 'spatial'.*'local'"):
        build(resnet, attention='local')
    with pytest.raises(ValueError, match="gradient of its L2 normalisation is infinite. Use 'mixed' or 'spatial'"):
        build(resnet, attention='channel')
    with pytest.raises(ValueError, match='4x4 are too small'):
        build(resnet)(images[:, :, :16, :16])


def test_fine_tunes_from_the_plain_classifier_as_a_whole(images, tmp_path):
    """What ``load_from`` does with the checkpoint of the plain classifier: masks and classifier alone may be new."""
    from mmresattn.weights import CheckpointError, load_weights

    trunk = TRUNKS['regnet'][0]
    plain = random_plain(trunk)
    state = {f'backbone.{name}': weight for name, weight in plain.state_dict().items()}
    head = dict(type='LinearClsHead', num_classes=3, in_channels=32)
    model = MODELS.build(
        dict(
            _scope_='mmpretrain',
            type='ImageClassifier',
            backbone=dict(type='ResidualAttention', trunk=trunk),
            neck=dict(type='GlobalAveragePooling'),
            head=head,
        )
    )
    load_weights(model, state, 'plain.pth', fine_tune=True)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.backbone(images)[0], plain(images)[0])
    del state['backbone.layer3.1.conv1.weight']
    with pytest.raises(CheckpointError, match='1 not in the file'):
        load_weights(model, state, 'plain.pth', fine_tune=True)
