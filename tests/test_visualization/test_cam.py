import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmresattn.apis import load_classifier
from mmresattn.models.layers import edit_attention
from mmresattn.visualization import CAM_METHODS, cam_layers, class_activation_maps, default_layer
from tests.conftest import ROOT
from tools.visualization import vis_cam

PREPROCESSOR = dict(type='ClsDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)
TINY = dict(base='attention56-cifar', channels=(8, 8, 8), modules=(1, 1, 1), poolings=(1, 1, 1), t=1, bottom_units=1)
VGG = dict(base='vgg-att', stages=([8], [('max', 2), 8], [('max', 2), 8]), tail=[('max', 2), 8], global_channels=8)
GAP = dict(type='GlobalAveragePooling')
LINEAR = dict(type='LinearClsHead', num_classes=5)


def classifier(**parts):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build({'type': 'ImageClassifier', 'data_preprocessor': PREPROCESSOR, **parts})
    for module in model.modules():  # no BatchNorm is the identity
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.5)
    return model.eval()


def attention_net():
    return classifier(backbone=dict(type='ResidualAttentionNet', arch=TINY), neck=GAP, head=dict(LINEAR, in_channels=8))


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 3, 32, 24), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture
def grad_cam():
    """The tests of grad-cam's results need it; which layers there are can be said without."""
    return pytest.importorskip('pytorch_grad_cam', reason='pip install --no-deps grad-cam ttach tqdm')


def stretch(maps):
    """Each map (N, H, W) to [0, 1]."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / maps.amax((1, 2), keepdim=True)


def cam_by_hand(model, images, labels, layer):
    """CAM (Zhou et al.): the features, weighed by the linear layer, in float64."""
    model.double()
    x = (images.double().flip(1) - 120) / 60
    features = []
    handle = model.get_submodule(layer).register_forward_hook(lambda m, i, out: features.append(out.detach()))
    model(x, mode='tensor')
    handle.remove()
    weight = model.head.fc.weight.detach()[labels]  # N, C
    maps = torch.einsum('nc,nchw->nhw', weight, features[0]).clamp(min=0)
    model.float()
    return stretch(F.interpolate(maps[:, None], images.shape[2:], mode='bilinear')[:, 0])


def test_of_a_linear_layer_on_averages_grad_cam_is_cam(images, grad_cam):
    model = attention_net()
    labels = torch.tensor([4, 0, 2])
    expected = cam_by_hand(model, images, labels, 'backbone.norm3')
    found = class_activation_maps(model, images, labels)
    assert found.shape == (3, 32, 24) and found.dtype == torch.float32
    assert found.amin((1, 2)).tolist() == [0] * 3 and found.amax((1, 2)).tolist() == pytest.approx([1] * 3)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (found - cam_by_hand(model, images, torch.tensor([1, 1, 1]), 'backbone.norm3')).abs().max() > 0.1
    with torch.no_grad():  # and without labels, of the classes that are predicted
        predicted = model(model.data_preprocessor({'inputs': images})['inputs'], mode='tensor').argmax(1)
        found = class_activation_maps(model, images)
    np.testing.assert_allclose(found, cam_by_hand(model, images, predicted, 'backbone.norm3'), atol=1e-4)


def test_a_layer_whose_output_is_changed_in_place(images, grad_cam):
    """The normalisation before a ReLU that works in place: its own output, negative values too, counts."""
    model = attention_net()
    norm, relu = model.backbone.norm3
    assert relu.inplace
    name = next(name for name, module in model.named_modules() if module is norm)
    found = class_activation_maps(model, images, [1, 2, 3], layer=name)
    relu.inplace = False
    np.testing.assert_allclose(found, class_activation_maps(model, images, [1, 2, 3], layer=name), atol=1e-6)


DP = dict(type='PayAttention', in_channels=(8, 8, 8), score='dp')
PC = dict(type='PayAttention', in_channels=(8, 8, 8), score='pc')
PAY = dict(type='PayAttentionNet', arch=VGG, out_indices=(1, 2))
PAY_HEAD = dict(type='PayAttentionHead', num_classes=5, in_channels=(8, 8))
NETS = {
    'ResidualAttentionNet': (
        dict(backbone=dict(type='ResidualAttentionNet', arch=TINY), neck=GAP, head=dict(LINEAR, in_channels=8)),
        'backbone.norm3',
    ),
    'AttentionResNet': (
        dict(
            backbone=dict(type='AttentionResNet', depth=18, attention=dict(type='SqueezeExcitation'), base_channels=4,
                          stem_channels=8),
            neck=GAP,
            head=dict(LINEAR, in_channels=32),
        ),
        'backbone.layer3',  # layer4 has but one position at this size
    ),
    'PayAttentionNet, dp': (dict(backbone=PAY, neck=DP, head=PAY_HEAD), 'neck.level2.project_local'),
    'PayAttentionNet, pc': (dict(backbone=PAY, neck=PC, head=PAY_HEAD), 'neck.level2.project_local'),
    'PayAttentionNet, indep': (
        dict(backbone=PAY, neck=DP, head=dict(PAY_HEAD, combine='indep')),
        'neck.level2.project_local',
    ),
    'AttentionBranchNetwork': (
        dict(
            type='AttentionBranchNetwork',
            backbone=dict(type='CIFARResNet', depth=8),
            head=dict(type='AttentionBranchHead', num_classes=5),
        ),
        'head.stage',
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', NETS)
def test_default_layers(name, images, grad_cam):
    parts, expected = NETS[name]
    model = classifier(**parts)
    layers = cam_layers(model, images)
    assert default_layer(layers) == expected
    found = class_activation_maps(model, images, [0, 1, 2])
    assert found.shape == (3, 32, 24) and found.min() == 0 and 0.99 < found.max() <= 1
    assert torch.equal(found, class_activation_maps(model, images, [0, 1, 2], layer=expected))


def test_layers_that_do_not_lead_to_the_scores_are_none(images):
    model = classifier(**NETS['AttentionResNet'][0])
    layers = cam_layers(model, images)
    assert layers['backbone.layer3'] == (16, 2, 2) and 'backbone.layer1.0.se_layer.map' not in layers
    assert 'neck.gap' not in layers and 'backbone.layer4' not in layers  # one position
    assert 'backbone.layer1.0.relu' not in layers  # runs twice
    layers = cam_layers(classifier(**NETS['AttentionBranchNetwork'][0]), images)
    assert 'neck.attention' in layers and 'neck.class_maps' in layers
    assert not [name for name in layers if name.startswith('neck.class_scores')]  # scores of the other branch


def test_what_is_wrong_is_said(images, monkeypatch, grad_cam):
    model = attention_net()
    with pytest.raises(KeyError, match=r"'backbone.norm4' is no layer.*'backbone.stage1.unit1'.*'backbone.norm3'") as e:
        class_activation_maps(model, images, layer='backbone.norm4')
    assert "'backbone.stage1.unit1.conv1'" not in str(e.value)  # it is within one that is named
    class_activation_maps(model, images, layer='backbone.stage1.unit1.conv1')
    with pytest.raises(KeyError, match="'neck.gap' is no layer"):
        class_activation_maps(model, images, layer='neck.gap')
    with pytest.raises(ValueError, match=r"one of \['gradcam', .*not 'cam'"):
        class_activation_maps(model, images, method='cam')
    for labels in ([0, 1], [0, 1, 5], [-1, 0, 0]):
        with pytest.raises(ValueError, match='one class from 0 to 4 for each of 3 images'):
            class_activation_maps(model, images, labels)
    with pytest.raises(ValueError, match='too small'):
        default_layer({'backbone.stage': (1, 4, 4)})
    headless = classifier(backbone=dict(type='ResidualAttentionNet', arch=TINY))
    with pytest.raises(ValueError, match='gave tuple'):
        cam_layers(headless, images)
    monkeypatch.setitem(sys.modules, 'pytorch_grad_cam', None)
    with pytest.raises(ImportError, match='pip install --no-deps grad-cam ttach tqdm'):
        class_activation_maps(model, images)


def test_the_model_stays_as_it_was(images, grad_cam):
    model = attention_net().train()
    model.backbone.stage1.eval()
    model.head.fc.requires_grad_(False)
    model(images.float(), mode='tensor').sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [None if weight.grad is None else weight.grad.clone() for weight in model.parameters()]
    needed = [weight.requires_grad for weight in model.parameters()]
    modes = [module.training for module in model.modules()]
    class_activation_maps(model, images)
    with pytest.raises(KeyError):
        class_activation_maps(model, images, layer='none')
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [weight.requires_grad for weight in model.parameters()] == needed and False in needed
    assert [module.training for module in model.modules()] == modes and len(set(modes)) == 2
    assert all(a is b is None or torch.equal(a, b) for a, b in zip((w.grad for w in model.parameters()), grads))
    assert not any(module._forward_hooks for module in model.modules())


def test_edits_of_attention_change_the_map(images, grad_cam):
    model = attention_net()
    whole = class_activation_maps(model, images, [0, 0, 0])
    left = torch.zeros(1, 8, 8, 6)
    left[..., :3] = 10
    with edit_attention(model, {'backbone.stage3.attention1.map': left}):
        edited = class_activation_maps(model, images, [0, 0, 0])
    assert (whole - edited).abs().max() > 0.1


@pytest.mark.parametrize('method', CAM_METHODS)
def test_methods(method, images, grad_cam):
    model = attention_net()
    found = class_activation_maps(model, images, [0, 1, 2], method)
    assert found.shape == (3, 32, 24) and found.isfinite().all() and found.min() >= 0 and found.amax() > 0.99
    other = class_activation_maps(model, images, [3, 4, 0], method)
    assert torch.equal(found, other) == (method in ('eigencam', 'fem'))  # those do not know of classes


def test_tool_draws(tmp_path, capsys, monkeypatch, grad_cam, saved_figures):
    config = tmp_path / 'tiny.py'
    config.write_text(
        f"_base_ = '{ROOT}/configs/resattn/attention56_digits.py'\n"
        f'model = dict(backbone=dict(arch={dict(TINY, _delete_=True)}), head=dict(in_channels=8))\n'
    )
    head = dict(LINEAR, num_classes=10, in_channels=8)
    model = classifier(backbone=dict(type='ResidualAttentionNet', arch=TINY), neck=GAP, head=head)
    model.data_preprocessor = nn.Identity()  # its numbers are those of the config
    torch.save(model.state_dict(), tmp_path / 'tiny.pth')
    files = [str(config), str(tmp_path / 'tiny.pth')]
    vis_cam.main(
        [*files, str(tmp_path / 'cam.png'), '--indices', '0', '5', '--method', 'gradcam', 'layercam', '--target', '3']
    )
    assert 'gradcam.backbone.norm3, layercam.backbone.norm3, class: 3' in capsys.readouterr().out
    model, loader = load_classifier(*files)
    shown = [axis.images[1].get_array() for axis in saved_figures['cam.png'].axes if len(axis.images) == 2]
    inputs = [loader.dataset[index]['inputs'][None] for index in (0, 5)]
    expected = [class_activation_maps(model, x, [3], method) for x in inputs for method in ('gradcam', 'layercam')]
    np.testing.assert_allclose(np.stack(shown), torch.cat(expected), atol=1e-5)
    monkeypatch.setenv('COLUMNS', '100')
    vis_cam.main([*files, '--list-layers'])
    out = capsys.readouterr().out
    assert 'backbone.stage1.unit1' in out and out.count('default') == 1
    with pytest.raises(ValueError, match=r"--target is predicted, true, or one of the classes .*not 'cat'"):
        vis_cam.main([*files, str(tmp_path / 'none.png'), '--target', 'cat'])
    with pytest.raises(SystemExit):
        vis_cam.main(files)
    assert 'name the picture to write' in capsys.readouterr().err
