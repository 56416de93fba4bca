"""Networks that begin as published ones: held against the classes of the libraries that publish them."""

import re

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, WEIGHT_INITIALIZERS, DefaultScope
from mmpretrain.models import ResNet, ResNeXt
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmresattn.models import ResidualAttentionNet
from mmresattn.models.backbones.residual_attention_net import ARCHITECTURES, resolve_arch
from mmresattn.models.layers import AttentionModule
from mmresattn.weights.pretrained_trunk import holders, read_source, stage_factors

CLASSES = 7


def mmpretrain_classifier(backbone, channels):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(
            type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=CLASSES, in_channels=channels),
        ))  # fmt: skip


def mmpretrain_resnet(depth, channels):
    backbone = dict(type=ResNet, depth=depth, stem_channels=8, base_channels=8)
    return mmpretrain_classifier(backbone, channels)


def mmpretrain_resnext():
    backbone = dict(type=ResNeXt, depth=50, groups=32, width_per_group=1, stem_channels=8, base_channels=16)
    return mmpretrain_classifier(backbone, 512)


def torchvision_resnet():
    from torchvision.models import resnet18

    return resnet18(num_classes=CLASSES)


def timm_resnet():
    resnet = pytest.importorskip('timm.models.resnet')
    return resnet.ResNet(resnet.BasicBlock, [2, 2, 2, 2], CLASSES, channels=(8, 16, 32, 64))


def timm_resnetv2():
    resnetv2 = pytest.importorskip('timm.models.resnetv2')
    return resnetv2.ResNetV2(
        [3, 4, 6, 3], (32, 64, 128, 256), CLASSES, stem_chs=8, conv_layer=resnetv2.create_conv2d,
        norm_layer=resnetv2.BatchNormAct2d,
    )  # fmt: skip


def own(unit, stem='conv'):
    arch = dict(base='resnet164-cifar', unit=unit, stem=stem, stem_channels=4, channels=(8, 8, 16),
                units_after=(2, 1, 2))  # fmt: skip
    return mmpretrain_classifier(dict(type='ResidualAttentionNet', arch=arch, out_indices=(0, 1, 2)), 16)


LAYERS = ('layer1', 'layer2', 'layer3', 'layer4')
RESNET18 = dict(base='attention-resnet18', stem_channels=8, channels=(8, 16, 32, 64))
OWN = dict(base='attention56-cifar', stem='conv', stem_channels=4, channels=(8, 8, 16))  # with masks in its last stage
SOURCES = {  # a network, modules that give its features, and an architecture that holds it
    'mmpretrain-resnet18': (lambda: mmpretrain_resnet(18, 64), LAYERS, RESNET18),
    'mmpretrain-resnet50': (
        lambda: mmpretrain_resnet(50, 256), LAYERS,
        dict(base='attention-resnet50', stem_channels=8, channels=(32, 64, 128, 256)),
    ),
    'mmpretrain-resnext50': (
        mmpretrain_resnext, LAYERS,
        dict(base='attentionnext92-resnext', stem_channels=8, channels=(64, 128, 256, 512)),
    ),
    'torchvision-resnet18': (torchvision_resnet, LAYERS, 'attention-resnet18'),
    'timm-resnet18': (timm_resnet, LAYERS, dict(RESNET18, stem_channels=64)),
    'timm-resnetv2': (
        timm_resnetv2, ('stages.0', 'stages.1', 'stages.2', 'norm'),
        dict(base='attention92-resnetv2', stem_channels=8, channels=(32, 64, 128, 256)),
    ),
    'own-preact': (lambda: own('preact'), None, OWN),
    'own-bottleneck': (lambda: own('bottleneck', 'cifar'), None, dict(OWN, unit='bottleneck', stem='cifar')),
}  # fmt: skip


def randomised(model, dtype=torch.float64):
    """Weights and statistics that are neither zero nor one."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    model.to(dtype).eval()
    return model


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """By its name: a network with random weights, and a file of them."""
    made = {}

    def get(name):
        if name not in made:
            path = tmp_path_factory.mktemp('sources') / f'{name}.pth'
            model = randomised(SOURCES[name][0]())
            torch.save(model.state_dict(), path)
            made[name] = model, str(path)
        model, path = made[name]
        model.load_state_dict(torch.load(path))  # a forward in training mode changes statistics
        return with_eps(model.double().eval(), 1e-5), path

    return get


def started(path, arch, dtype=torch.float64, classes=CLASSES, **kwargs):
    channels = resolve_arch(arch).channels
    backbone = dict(type='ResidualAttentionNet', arch=arch, out_indices=range(len(channels)), **kwargs)
    torch.manual_seed(1)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(
            type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=classes, in_channels=channels[-1]),
        ))  # fmt: skip
    model.to(dtype)
    WEIGHT_INITIALIZERS.build(dict(type='PretrainedTrunk', checkpoint=path))(model)
    model.eval()
    return model


def outputs(model, names, x):
    """Features of named modules, and the scores."""
    found = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda module, args, out, name=name: found.update({name: out}))
        for name in names
    ]
    scores = model(x)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in names], scores


def both(reference, names, model, x):
    """Pairs of features and scores, those of the started network divided by the known factors."""
    if isinstance(getattr(reference, 'backbone', None), ResidualAttentionNet):
        features = reference.backbone(x)
        scores = reference.head(reference.neck(features))
    elif hasattr(reference, 'backbone'):
        features, last = outputs(reference.backbone, names, x)
        scores = reference.head(reference.neck(last))
    else:
        features, scores = outputs(reference, names, x)
    own = model.backbone(x)
    factors = stage_factors(model.backbone)
    if hasattr(model.backbone, f'norm{len(factors)}'):
        factors[-1] = 1
    pairs = [(mine / factor, theirs) for mine, factor, theirs in zip(own, factors, features, strict=True)]
    return [*pairs, (model.head(model.neck(own)), scores)]


def error(pairs):
    return max(((mine - theirs).abs().max() / theirs.abs().max()).item() for mine, theirs in pairs)


def images(dtype=torch.float64, size=64):
    return torch.randn(4, 3, size, size, dtype=dtype, generator=torch.Generator().manual_seed(2))


def with_eps(model, eps):
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eps = eps
    return model


TINY_EPS = dict(type='BN', eps=1e-10)


@pytest.mark.parametrize('name', SOURCES)
def test_outputs_are_those_of_the_source(source, name):
    (reference, path), (_, names, arch) = source(name), SOURCES[name]
    x = images(size=32 if name.startswith(('own', 'torchvision')) else 64)
    with torch.no_grad():
        assert error(both(reference, names, started(path, arch), x)) < 1e-12
        single = started(path, arch, torch.float32)
        assert error(both(reference.float(), names, single, x.float())) < 2e-5
        # In training BatchNorm adds its epsilon to a variance that is s^2 times as large: equal up to that.
        reference, model = with_eps(source(name)[0], 1e-10), started(path, arch, norm_cfg=TINY_EPS)
        for training in (True, False):  # and then with the running statistics that training has updated
            reference.train(training), model.train(training)
            assert error(both(reference, names, model, x)) < 1e-8


@pytest.mark.parametrize('options', [
    dict(attention='channel'), dict(attention='spatial'), dict(mask='local_conv'),
    dict(attention_residual_learning=False), dict(attention='spatial', attention_residual_learning=False),
    dict(with_cp=True, new_masks=True),
], ids=str)  # fmt: skip
@pytest.mark.parametrize('name', ['mmpretrain-resnet18', 'own-preact'])
def test_every_kind_of_mask_starts_equal_and_learns(source, name, options):
    (reference, path), (_, names, arch) = source(name), SOURCES[name]
    x = images(size=32 if name.startswith(('own', 'torchvision')) else 64)
    model = started(path, arch, norm_cfg=TINY_EPS, **options)
    with_eps(reference, 1e-10)
    with torch.no_grad():
        assert error(both(reference, names, model, x)) < 1e-12
    reference.train(), model.train()
    pairs = both(reference, names, model, x)
    assert error(pairs) < 1e-7
    pairs[-1][0].logsumexp(1).sum().backward()
    for module in model.modules():
        if isinstance(module, AttentionModule):
            # Of the last convolution or, where that gives a constant, of the normalisation before it.
            largest = [parameter.grad.abs().max() for parameter in module.mask.linear.parameters()]
            assert 1e-8 < max(largest) < 1e3


def test_masks_move_at_the_first_steps(source):
    """Of every kind: the loss falls, and the masks are no longer the same everywhere."""
    for attention in ('mixed', 'channel', 'spatial'):
        model = started(source('mmpretrain-resnet18')[1], RESNET18, attention=attention, frozen_stages=4,
                        new_masks=True).train()  # fmt: skip
        trained = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
        optimizer, x, losses = torch.optim.SGD(trained, 0.05), images(), []
        for _ in range(3):
            loss = nn.functional.cross_entropy(model(x, mode='tensor'), torch.arange(4))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[2] < losses[0], attention
        module = model.backbone.stage1.attention1
        mask = module.activation(module.mask(torch.randn(1, 8, 16, 16, dtype=torch.float64)))
        assert mask.std((2, 3)).max() > 1e-4, attention


def test_variances_below_epsilon(source, tmp_path):
    """Channels that are dead in the source: without residual learning their scaled variance would be negative."""
    reference, _ = source('mmpretrain-resnet18')
    reference.backbone.layer1[1].bn1.running_var[:4] = 1e-9
    torch.save(reference.state_dict(), tmp_path / 'dead.pth')
    arch = dict(RESNET18, p=1, modules=(2, 1, 1, 0))
    model = started(str(tmp_path / 'dead.pth'), arch, attention_residual_learning=False)
    assert (model.backbone.stage1.attention2.after[0].bn1.running_var > 0).all()
    with torch.no_grad():
        assert error(both(reference, LAYERS, model, images())) < 1e-12


def test_log_says_what_was_taken_what_is_the_identity_and_what_is_new(source, monkeypatch):
    path = source('timm-resnetv2')[1]
    arch = SOURCES['timm-resnetv2'][2]
    lines = []
    monkeypatch.setattr('mmresattn.weights.pretrained_trunk.print_log', lambda line, **kwargs: lines.append(line))
    started(path, arch, classes=3, norm_outputs=True)
    assert len(lines) == 3
    assert re.search(r'took stem, 16 units of .*ResNetV2 of timm: 3, 4, 6, 3 units, preact', lines[0])
    assert 'identity: stage1.attention1.before.0, stage1.attention1.after.0, stage2' in lines[1]
    assert re.search(r'new: stage1.attention1.mask, .*norm1, norm2, norm3, classifier \(3 classes\)', lines[2])
    assert 'Features of the stages are 1.5, 2.25, 3.375, 1 times' in lines[2]


def test_prefixes_and_what_is_left(source, tmp_path):
    model, _ = source('mmpretrain-resnet18')
    state = {f'module.{name}': value for name, value in model.state_dict().items()}
    momentum = {f'momentum_{name.removeprefix("module.")}': value for name, value in state.items()}
    torch.save(dict(state_dict={**state, 'module.queue': torch.zeros(2)}), tmp_path / 'ddp.pth')
    found = read_source(str(tmp_path / 'ddp.pth'))
    assert found.units == (2, 2, 2, 2) and found.unit == 'basic'
    assert found.left == ['queue'] and found.classifier['weight'].shape == (CLASSES, 64)
    torch.save(dict(state_dict={**model.state_dict(), **momentum}), tmp_path / 'two.pth')
    for prefix in (None, 'encoder.'):
        with pytest.raises(ValueError, match=r"under \['backbone.', 'momentum_backbone.'\]: choose one"):
            read_source(str(tmp_path / 'two.pth'), prefix)
    assert 'backbone.conv1.weight' in read_source(str(tmp_path / 'two.pth'), 'momentum_backbone.').left


def refused(source, name, arch, **options):
    """The message, once it is known that nothing has changed."""
    _, path = source(name)
    net = ResidualAttentionNet(arch, init_cfg=dict(type='PretrainedTrunk', checkpoint=path), **options)
    before = [value.clone() for value in net.state_dict().values()]
    with pytest.raises(ValueError) as info:
        net.init_weights()
    assert all(map(torch.equal, before, net.state_dict().values()))
    return str(info.value)


RESNET50 = SOURCES['mmpretrain-resnet50'][2]


@pytest.mark.parametrize(('name', 'arch', 'message'), [
    ('torchvision-resnet18', 'attention56-cifar', 'units are basic, those of this architecture preact.*resnet18'),
    ('mmpretrain-resnet50', dict(RESNET50, units_after=(0, 1, 0, 2)), 'have 3, 4, 6, 3 units, .* at most 3, 4, 5, 3'),
    ('mmpretrain-resnet50', dict(RESNET50, stem='imagenet'), 'stem is resnet, that of this architecture imagenet'),
    ('mmpretrain-resnet50', dict(RESNET50, channels=(32, 64, 128, 128)), r'stage4.unit1.conv1.weight is \(64, 128, 1'),
    ('mmpretrain-resnet50', dict(RESNET50, stem_channels=4), r'stem.0.weight is \(8, 3, 7, 7\) in it and \(4, 3, 7, 7'),
    ('mmpretrain-resnet50', dict(base='attentionnext92-resnext', channels=(64,) * 4), 'bottleneck.*resnext'),
    ('timm-resnetv2', dict(base='attention56', channels=(32, 64, 128, 256)), 'stem is resnetv2.*at most 5, 5, 5, 3'),
])  # fmt: skip
def test_what_an_architecture_cannot_hold_is_refused(source, name, arch, message):
    assert re.search(message, refused(source, name, arch))


@pytest.mark.parametrize(('options', 'message'), [
    (dict(attention='channel', attention_residual_learning=False), 'root of the number of channels.*mixed'),
    (dict(norm_cfg=dict(type='GN', num_groups=2)), r'stem.1.0.running_mean is \(8,\) in it and missing here'),
    (dict(in_channels=1), r'stem.0.weight is \(8, 3, 7, 7\) in it and \(8, 1, 7, 7\) here'),
])  # fmt: skip
def test_options_that_cannot_start_equal_are_refused(source, options, message):
    assert re.search(message, refused(source, 'mmpretrain-resnet18', RESNET18, **options))


def resnet(**changes):
    """A ResNet-18 of MMPretrain with some weights renamed or left out."""
    state = ResNet(18, stem_channels=8, base_channels=8).state_dict()
    return {changes.get(name, name): value for name, value in state.items() if changes.get(name, name)}


@pytest.mark.parametrize(('state', 'message'), [
    (dict(weight=torch.zeros(1)), 'has no residual network of a known layout'),
    (ResNet(18, stem_channels=8, base_channels=8, deep_stem=True).state_dict(), 'stem.0.weight is missing in it'),
    (resnet() | {'layer1.0.se.fc1.weight': torch.zeros(1, 8, 1, 1)}, r'unit1.se.fc1.weight is \(1, 8, 1, 1\) in it'),
    ({name: value for name, value in resnet().items() if 'running' not in name}, 'running_mean is missing in it'),
    (ResNet(50, stem_channels=8, base_channels=8, avg_down=True).state_dict(), 'bottleneck.*No named architecture'),
])  # fmt: skip
def test_other_networks_are_refused(state, message, tmp_path):
    torch.save(state, tmp_path / 'other.pth')
    backbone = ResidualAttentionNet(RESNET18)
    with pytest.raises(ValueError, match=message):
        WEIGHT_INITIALIZERS.build(dict(type='PretrainedTrunk', checkpoint=str(tmp_path / 'other.pth')))(backbone)


def test_a_residual_attention_network_and_other_modules_are_refused(tmp_path):
    init = dict(type='PretrainedTrunk', checkpoint=str(tmp_path / 'attention.pth'))
    net = ResidualAttentionNet(RESNET18)
    torch.save(net.state_dict(), tmp_path / 'attention.pth')
    with pytest.raises(ValueError, match='is a Residual Attention Network already.*ClassifierWeights'):
        WEIGHT_INITIALIZERS.build(init)(net)
    with pytest.raises(ValueError, match='starts a ResidualAttentionNet.*not ResNet'):
        WEIGHT_INITIALIZERS.build(init)(ResNet(18, stem_channels=8, base_channels=8))
    for name in ('mmpretrain::none', 'timm::none', 'zoo::resnet50'):
        with pytest.raises(ValueError, match='none|zoo is not a known zoo'):
            read_source(name)


def test_names_of_the_zoo_are_looked_up(source, monkeypatch):
    from mmpretrain.apis.model import ModelHub

    from mmresattn.weights.pretrained_trunk import find_weights

    assert find_weights('mmpretrain::resnet50_8xb32_in1k') == ModelHub.get('resnet50_8xb32_in1k').weights
    assert find_weights('torchvision://resnet50') == 'torchvision://resnet50'
    _, path = source('mmpretrain-resnet18')
    monkeypatch.setattr('mmresattn.weights.pretrained_trunk.find_weights', lambda name: path)
    assert read_source('mmpretrain::resnet18').units == (2, 2, 2, 2)


@pytest.mark.parametrize(('depth', 'expected'), [
    (18, ['attention-resnet18', 'attention-resnet34']),
    (50, ['attention-resnet50', 'attention-resnet101', 'attention-resnet152']),
    (152, ['attention-resnet152']),
])  # fmt: skip
def test_every_resnet_has_an_architecture_of_its_size(depth, expected, tmp_path):
    import torchvision

    with torch.device('meta'):
        state = torchvision.models.get_model(f'resnet{depth}').state_dict()
    source = read_state(state)
    assert holders(source) == expected and source.units == ARCHITECTURES[expected[0]].units()


def read_state(state):
    import mmresattn.weights.pretrained_trunk as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'read_checkpoint', lambda address: dict(state_dict=state, meta={}))
        return read_source('weights')


@pytest.mark.parametrize('name', ['torchvision-resnet18', 'own-bottleneck'])
def test_tool_writes_a_classifier_with_the_scores_of_the_source(source, name, tmp_path, capsys, monkeypatch):
    from mmresattn.weights import read_checkpoint
    from tools.model_converters import pretrained_to_resattn as tool

    reference, path = source(name)
    out = tmp_path / 'started.pth'
    (tmp_path / 'classes.txt').write_text('\n'.join('abcdefg'))
    image = tmp_path / 'image.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 60, 3), np.uint8)).save(image)
    if name == 'own-bottleneck':
        monkeypatch.setitem(ARCHITECTURES, 'small', resolve_arch(SOURCES[name][2]))
    tool.main([path, str(out), '--classes', str(tmp_path / 'classes.txt'), '--images', str(image)])
    printed = capsys.readouterr().out
    assert float(re.search(r'differ by at most (\S+) of', printed)[1]) < 1e-5
    assert '1 of 1 predictions are the same' in printed
    content = read_checkpoint(out)
    assert content['meta']['dataset_meta'] == dict(classes=list('abcdefg'))
    assert content['meta']['mmresattn']['preprocessing']['mean'] == tool.IMAGENET['mean']
    # The file is that of a classifier which gives the scores of the source's own class.
    model = started(path, content['meta']['mmresattn']['arch'], torch.float32)
    model.load_state_dict(content['state_dict'])
    x = images(torch.float32, 32)
    with torch.no_grad():
        assert error(both(reference.float(), SOURCES[name][1], model, x)) < 2e-5


def test_tool_says_what_is_wrong_before_it_works(source, tmp_path, capsys):
    from tools.model_converters import pretrained_to_resattn as tool

    path = source('own-preact')[1]
    for args, message in [
        ([path, str(tmp_path / 'none/x.pth')], 'no folder'),
        ([path, str(tmp_path / 'x.pth')], 'stem.0.weight is (4, 3, 3, 3) in it and (16, 3, 3, 3) here'),
        ([path, str(tmp_path / 'x.pth')], 'No named architecture holds'),
        ([source('torchvision-resnet18')[1], str(tmp_path / 'x.pth'), '--images', 'no.jpg'], 'no.jpg'),
        ([str(tmp_path / 'none.pth'), str(tmp_path / 'x.pth')], 'There is no checkpoint'),
    ]:
        with pytest.raises(SystemExit):
            tool.main(args)
        assert message in capsys.readouterr().err
    assert not (tmp_path / 'x.pth').exists()


def test_configs_are_checked_before_data_are_read(source, tmp_path):
    from mmresattn.weights import check_classifier_weights, drop_classifier_weights

    backbone = dict(type='ResidualAttentionNet', arch=RESNET18)
    init = dict(type='PretrainedTrunk', checkpoint=source('mmpretrain-resnet18')[1])
    whole, part = dict(type='ImageClassifier', backbone=backbone, init_cfg=init), dict(backbone, init_cfg=init)
    for model in (whole, dict(backbone=part)):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            check_classifier_weights(model)
            init['checkpoint'] = source('timm-resnetv2')[1]
            with pytest.raises(ValueError, match='units are preact'):
                check_classifier_weights(model)
            drop_classifier_weights(model)
            check_classifier_weights(model)
        init['checkpoint'] = source('mmpretrain-resnet18')[1]


def test_masks_alone_are_trained_by_their_config():
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper

    from tests.conftest import ROOT

    cfg = Config.fromfile(ROOT / 'configs/resattn/attention-resnet50-masks_imagenet.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        cfg.model.backbone.arch = dict(base='attention-resnet50', stem_channels=8, channels=(8, 8, 8, 8))
        cfg.model.head.in_channels = 8
        model = MODELS.build(cfg.model).train()
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {id(p): group['lr'] for group in wrapper.param_groups for p in group['params']}
    rates = {name: rates.get(id(p), 0) for name, p in model.named_parameters()}
    assert {name for name, rate in rates.items() if rate} == {name for name in rates if '.mask.' in name}
    assert set(rates.values()) == {0, 0.02}
    assert all('.mask.' in name for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training)
