import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmpretrain.models.backbones import ResNet, ResNeXt, SEResNet, SEResNeXt
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from mmresattn.models.backbones.attention_resnet import AttentionBasicBlock, AttentionBottleneck, AttentionResNet
from mmresattn.models.layers import NonLocalAttention, SqueezeExcitation, edit_attention, record_attention

SE = dict(type='SqueezeExcitation')
OFFICIAL = dict(
    type='NonLocalAttention', norm_cfg=dict(type='BN'), sub_sample=True, pool_first=True, out_bias=True
)  # fmt: skip
STAGES = {
    1: (False, False, (-2,), False),
    5: (False, (1, 3), (1, 3, 5), False),
    10: (False, True, True, False),
}
CAFFE = dict(style='caffe', caffe_pool=True)
# Arguments, parameters with a head of 1000 classes, multiply-adds at 224 in G where the official files fix them.
FACTS = {
    'resnet50': (dict(), 25_557_032, None),
    'se4': (dict(attention=dict(SE, ratio=4), **CAFFE), 35_635_688, None),
    'se8': (dict(attention=dict(SE, ratio=8), **CAFFE), 30_603_912, None),
    'se16': (dict(attention=SE, **CAFFE), 28_088_024, 3.8605),
    'se32': (dict(attention=dict(SE, ratio=32), **CAFFE), 26_830_080, None),
    'se-resnext50': (dict(attention=SE, groups=32, caffe_pool=True), 27_559_896, 4.2330),
    'nonlocal1': (dict(attention=dict(OFFICIAL, stages=STAGES[1])), 27_658_792, None),
    'nonlocal5': (dict(attention=dict(OFFICIAL, stages=STAGES[5])), 32_915_496, None),
    'nonlocal10': (dict(attention=dict(OFFICIAL, stages=STAGES[10])), 40_273_960, None),
}
TABLE_7 = {'se4': 35.7, 'se8': 30.7, 'se16': 28.1, 'se32': 26.9, 'resnet50': 25.6}  # of the SENet paper, in millions


class ChannelGate(nn.Module):
    """Attention from outside of this package: it needs no more than a place."""

    place = 'after'

    def __init__(self, channels, factor):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1), float(factor)))

    def forward(self, x):
        return x * self.weight


class LikeConv(nn.Conv2d):
    """What replaces a convolution gets the convolution's arguments."""

    place = 'conv'

    def __init__(self, *args, mark, **kwargs):
        super().__init__(*args, **kwargs)
        self.mark = mark


def small(depth=50, seed=0, **kwargs):
    torch.manual_seed(seed)
    return AttentionResNet(depth, stem_channels=8, base_channels=8, **kwargs)


def randomise(model):
    """Weights and statistics that are neither zero nor one, in evaluation mode."""
    torch.manual_seed(1)
    for norm in model.modules():
        if isinstance(norm, _BatchNorm):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.2, 0.7)
            nn.init.normal_(norm.bias, std=0.1)
    model.eval()  # MMPretrain's returns None
    return model


@pytest.mark.parametrize('name', FACTS)
def test_official_numbers(name):
    kwargs, parameters, macs = FACTS[name]
    with torch.device('meta'):
        backbone, head = AttentionResNet(50, out_indices=range(4), **kwargs).eval(), nn.Linear(2048, 1000)
        image = torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        outs = backbone(image)
        head(outs[-1].mean((2, 3)))
    total = sum(p.numel() for model in (backbone, head) for p in model.parameters())
    assert total == parameters
    if macs:
        assert round(counter.get_total_flops() / 2e9, 4) == macs
    if name in TABLE_7:
        assert total == pytest.approx(TABLE_7[name] * 1e6, abs=0.1e6)
    assert [out.shape[1:] for out in outs] == [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]


@pytest.mark.parametrize(('depth', 'weights'), [(50, 2_514_944), (101, 4_743_168), (152, 6_578_176)])
def test_weights_of_squeeze_excitation(depth, weights):
    """``2 / r * sum_s N_s C_s^2`` (SENet paper, equation 5)."""
    with torch.device('meta'):
        backbone = AttentionResNet(depth, SE)
    added = sum(p.numel() for name, p in backbone.named_parameters() if '.se_layer.' in name and p.dim() > 1)
    numbers = AttentionResNet.arch_settings[depth][1]
    assert added == weights == 2 * sum(n * c**2 for n, c in zip(numbers, (256, 512, 1024, 2048))) // 16


@pytest.mark.parametrize(
    ('blocks', 'names'),
    [
        (1, ['layer3.4']),
        (5, ['layer2.1', 'layer2.3', 'layer3.1', 'layer3.3', 'layer3.5']),
        (10, [f'layer2.{i}' for i in range(4)] + [f'layer3.{i}' for i in range(6)]),
    ],
)
def test_places_of_the_non_local_blocks(blocks, names):
    with torch.device('meta'):
        backbone = AttentionResNet(50, dict(OFFICIAL, stages=STAGES[blocks])).eval()
    with record_attention(backbone) as maps:
        backbone(torch.empty(1, 3, 224, 224, device='meta'))
    assert list(maps) == [f'{name}.nonlocal_block.map' for name in names]
    sizes = {'2': (1, 1, 784, 196), '3': (1, 1, 196, 49)}
    assert all(attention.shape == sizes[name[5]] for name, attention in maps.items())


@pytest.mark.parametrize(
    ('theirs', 'depth', 'attention', 'kwargs'),
    [
        (ResNet, 18, None, {}),
        (ResNet, 50, None, dict(style='caffe', avg_down=True)),
        (ResNeXt, 50, None, dict(groups=2, width_per_group=4)),
        (SEResNet, 50, SE, {}),
        (SEResNet, 50, SE, dict(deep_stem=True)),
        (SEResNeXt, 50, SE, dict(groups=2, width_per_group=4)),
    ],
)
def test_weights_of_mmpretrain_load_and_give_the_same(theirs, depth, attention, kwargs):
    kwargs = dict(kwargs, out_indices=(1, 3))
    theirs = randomise(theirs(depth, stem_channels=8, base_channels=8, **kwargs))
    ours = small(depth, attention=attention, **kwargs).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 48, 40)
    for out, expected in zip(ours(x), theirs(x)):
        assert torch.equal(out, expected) and out.any()


def test_non_local_blocks_start_as_the_network_without_them():
    plain = randomise(small())
    backbone = small(attention=dict(OFFICIAL, stages=STAGES[10])).eval()
    backbone.init_weights()  # MMEngine's initialisation sets every BatchNorm to one, and then reaches the blocks
    missing, unexpected = backbone.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and missing and all('.nonlocal_block.' in name for name in missing)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(backbone(x)[0], plain(x)[0])
    for module in backbone.modules():
        if isinstance(module, NonLocalAttention):
            assert 0.005 < module.conv_out.conv.weight.std() < 0.02 and not module.conv_out.norm.weight.any()


def test_pretrained_weights_are_not_initialised_again(tmp_path):
    backbone = randomise(small(18, attention=dict(type=NonLocalAttention, norm_cfg=dict(type='BN'))))
    torch.save(backbone.state_dict(), tmp_path / 'weights.pth')
    checkpoint = str(tmp_path / 'weights.pth')
    attention = [dict(type=NonLocalAttention, norm_cfg=dict(type='BN'), stages=(True,) * 4)]
    other = small(18, seed=2, attention=attention, init_cfg=dict(type='Pretrained', checkpoint=checkpoint))
    other.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(backbone.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize('block', [AttentionBasicBlock, AttentionBottleneck])
def test_places_in_a_block_by_hand(block):
    torch.manual_seed(0)
    bottleneck = block is AttentionBottleneck
    layer = block(16, 16, **(dict(groups=1) if bottleneck else {}))
    layer.add_attention(LikeConv, mark=1)
    layer.add_attention(SqueezeExcitation, ratio=4, divisor=1)
    layer.add_attention(ChannelGate, factor=-3)
    layer = randomise(layer).double()
    assert layer.branch == ('se_layer',) and layer.after == ('channel_gate',)
    x = torch.randn(2, 16, 5, 6, dtype=torch.float64)

    def norm(x, bn):
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)

    h = norm(F.conv2d(x, layer.conv1.weight, padding=layer.conv1.padding), layer.bn1).relu()
    h = norm(F.conv2d(h, layer.conv2.weight, padding=1), layer.bn2)
    if bottleneck:
        h = norm(F.conv2d(h.relu(), layer.conv3.weight), layer.bn3)
    se = layer.se_layer
    hidden = F.linear(h.mean((2, 3)), se.conv1.conv.weight.flatten(1), se.conv1.conv.bias).relu()
    weight = F.linear(hidden, se.conv2.conv.weight.flatten(1), se.conv2.conv.bias).sigmoid()
    expected = -3 * (weight[..., None, None] * h + x).relu()
    with record_attention(layer) as maps:
        out = layer(x)
    assert torch.allclose(out, expected, rtol=1e-10)
    assert torch.allclose(maps['se_layer.map'].flatten(1), weight, rtol=1e-10)
    for parameter in (se.conv2.conv.weight, se.conv2.conv.bias):
        nn.init.zeros_(parameter)
    assert torch.allclose(layer(x), -3 * (h / 2 + x).relu(), rtol=1e-10)  # half the branch, and the whole shortcut


@pytest.mark.parametrize(('depth', 'replaced', 'kept'), [(18, 'conv1', 'conv2'), (50, 'conv2', 'conv1')])
def test_a_replacement_gets_what_the_convolution_got(depth, replaced, kept):
    stages = (False, True, (0,), False)
    backbone = small(depth, attention=dict(type=LikeConv, mark=7, stages=stages), dilations=(1, 1, 2, 1))
    for (name, block), (_, plain) in zip(blocks_of(backbone), blocks_of(small(depth, dilations=(1, 1, 2, 1)))):
        layer, conv = getattr(block, replaced), getattr(plain, replaced)
        attended = name.startswith('layer2') or name == 'layer3.0'
        assert isinstance(layer, LikeConv) == attended and type(getattr(block, kept)) is nn.Conv2d
        assert layer.extra_repr() == conv.extra_repr() and (not attended or layer.mark == 7)
    assert backbone.eval()(torch.randn(1, 3, 32, 32))[0].any()


def blocks_of(backbone):
    return [
        (f'{stage}.{i}', block) for stage in backbone.res_layers for i, block in enumerate(getattr(backbone, stage))
    ]


def test_several_layers_each_in_its_place():
    backbone = small(attention=[dict(SE, stages=(True, False, True, False)), dict(OFFICIAL, stages=STAGES[1])]).eval()
    x = torch.randn(1, 3, 64, 64)
    with record_attention(backbone) as maps:
        plain = backbone(x)[0]
    assert list(maps) == [f'layer1.{i}.se_layer.map' for i in range(3)] + [
        name for i in range(6) for name in ([f'layer3.{i}.se_layer.map'] + ['layer3.4.nonlocal_block.map'] * (i == 4))
    ]
    with edit_attention(backbone, {'layer1.0.se_layer.map': torch.zeros_like}), record_attention(backbone) as edited:
        out = backbone(x)[0]
    assert not edited['layer1.0.se_layer.map'].any() and not torch.allclose(out, plain)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(depth=20), r'\[18, 34, 50, 101, 152\], not 20'),
        (dict(attention=dict(type='NoSuchLayer')), "'NoSuchLayer'.*SqueezeExcitation"),
        (dict(attention=dict(type='NonLocal2d')), "NonLocal2d does not say.*'branch'.*'after'.*'conv'"),
        (dict(attention=dict(SE, stages=(True, True))), 'each of the 4 stages'),
        (dict(attention=dict(SE, stages=(True, True, (6,), True))), r'6 blocks: from -6 to 5, not \(6,\)'),
        (dict(attention=[SE, SE]), "two layers named 'se_layer'"),
        (dict(depth=18, groups=32), 'ResNet-18 has no groups'),
        (dict(out_indices=4), r'from -4 to 3, not \[4\]'),
        (dict(out_indices=()), 'out_indices'),
        (dict(frozen_stages=5), 'from -1 to 4'),
        (dict(strides=(1, 2)), '4 stages'),
        (dict(strides=(1, 2, 0, 2)), 'strides has one integer of at least 1'),
        (dict(num_stages=5), 'strides has one integer of at least 1 for each of the 5 stages'),
        (dict(out_indices=(3, -1)), 'twice'),
        (dict(frozen_stages=0.5), 'frozen_stages is an integer'),
        (dict(base_channels=0), 'base_channels is an integer of at least 1'),
        (dict(deep_stem=True, stem_channels=1), 'stem_channels is an integer of at least 2'),
        (dict(groups=0), 'groups is an integer of at least 1'),
        (dict(style='torch'), "style is 'pytorch' or 'caffe', not 'torch'"),
        (dict(caffe_pool='ceil'), "caffe_pool is True, False or 'floor', not 'ceil'"),
    ],
)
def test_arguments_that_do_not_fit(kwargs, message):
    with pytest.raises(ValueError, match=message), torch.device('meta'):
        AttentionResNet(**{'depth': 50, **kwargs})


def test_nothing_is_built_past_the_last_output_and_everything_gets_a_gradient():
    both = [SE, dict(OFFICIAL, stages=STAGES[5])]
    backbone = small(attention=both, out_indices=(-4, 1), zero_init_residual=False)
    assert backbone.res_layers == ['layer1', 'layer2'] and backbone.out_indices == [0, 1]
    for norm in backbone.modules():
        if isinstance(norm, _BatchNorm):
            nn.init.ones_(norm.weight)  # behind a gamma of zero there are none
    outs = backbone(torch.randn(2, 3, 32, 32))
    assert [out.shape[1:] for out in outs] == [(32, 8, 8), (64, 4, 4)]
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    assert all(p.grad is not None and p.grad.any() for p in backbone.parameters())
    assert small(num_stages=2, strides=(1, 2), dilations=(1, 1), attention=SE).res_layers == ['layer1', 'layer2']


@pytest.mark.parametrize('edited', [False, True])
@pytest.mark.parametrize('recorded', [False, True])
def test_with_cp_gives_the_same_gradients_also_of_edited_maps(edited, recorded):
    attention = [SE, dict(type='NonLocalAttention', sub_sample=True, stages=(False, True, False, False))]
    x = torch.randn(2, 3, 32, 32)
    edits = {'layer1.1.se_layer.map': lambda s: 1 - s, 'layer2.0.nonlocal_block.map': lambda w: 2 * w}
    results = []
    for with_cp in (False, True):
        backbone = small(attention=attention, with_cp=with_cp, out_indices=1)
        for layer in backbone.modules():
            if isinstance(layer, NonLocalAttention):
                nn.init.normal_(layer.conv_out.conv.weight)  # no identity
        with edit_attention(backbone, edits if edited else {}):
            if recorded:
                with record_attention(backbone, every=True) as maps:
                    loss = backbone(x)[0].square().mean()
            else:
                loss = backbone(x)[0].square().mean()
        loss.backward()  # after the edit has ended
        assert not recorded or all(len(passed) == 1 for passed in maps.values())
        results.append([loss, *(parameter.grad for parameter in backbone.parameters())])
    # One forms the weights of the non-local blocks, the other may not.
    assert all(torch.allclose(plain, again, rtol=1e-3, atol=1e-5) for plain, again in zip(*results))


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2])
def test_frozen_stages_and_norm_eval(frozen_stages):
    backbone = small(attention=SE, frozen_stages=frozen_stages)
    assert backbone.train() is backbone
    for name, parameter in backbone.named_parameters():
        depth = int(name[5]) if name.startswith('layer') else 0
        assert parameter.requires_grad == (depth > frozen_stages)
    assert backbone.layer1.training == (frozen_stages < 1)
    backbone = small(attention=SE, norm_eval=True).train()
    assert not any(m.training for m in backbone.modules() if isinstance(m, _BatchNorm)) and backbone.layer1.training
    assert len(small(attention=SE, frozen_stages=4, out_indices=0).res_layers) == 1


def test_pooling_of_caffe():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    with torch.device('meta'):
        caffe, plain = AttentionResNet(18, caffe_pool=True).maxpool, AttentionResNet(18).maxpool
    assert caffe(image).flatten().tolist() == [10, 11, 14, 15] and plain(image).flatten().tolist() == [5, 7, 13, 15]


def test_layer_depth_honours_the_prefix():
    with torch.device('meta'):
        backbone = AttentionResNet(50, SE, out_indices=1)
    names = [name for name, _ in backbone.named_parameters()]
    depths = [backbone.get_layer_depth(f'net.{name}', 'net.') for name in names]
    assert depths == [backbone.get_layer_depth(name) for name in names]
    assert {depth for depth, _ in depths} == set(range(8)) and {number for _, number in depths} == {9}
    by_name = dict(zip(names, depths))
    assert by_name['conv1.weight'] == (0, 9) and by_name['layer2.0.se_layer.conv1.conv.bias'] == (4, 9)
    assert backbone.get_layer_depth('head.fc.weight', 'net.') == (8, 9)


def test_builds_from_a_config_in_the_scope_of_mmpretrain():
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='AttentionResNet', depth=18, base_channels=8, stem_channels=8, attention=SE),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=64),
        )
    )
    with record_attention(model) as maps:
        assert model.eval()(torch.randn(2, 3, 32, 32), mode='tensor').shape == (2, 5)
    assert len(maps) == 8 and maps['backbone.layer1.0.se_layer.map'].shape == (2, 8, 1, 1)


def test_images_that_do_not_fit_are_named():
    for caffe_pool, least in [(False, 1), (True, 3), ('floor', 5)]:
        backbone = AttentionResNet(18, base_channels=4, stem_channels=4, caffe_pool=caffe_pool)
        with pytest.raises(ValueError, match='Expected more than 1 value per channel'):
            backbone(torch.zeros(1, 3, 32, 32))
        backbone.eval()
        assert backbone.min_size == least and backbone(torch.zeros(1, 3, least, least))[0].shape == (1, 32, 1, 1)
        with pytest.raises(ValueError, match=r'shape \(N, 3, H, W\), got \(1, 1, 32, 32\)'):
            backbone(torch.zeros(1, 1, 32, 32))
    with pytest.raises(ValueError, match='2x9 are too small: this network needs at least 5x5'):
        backbone(torch.zeros(1, 3, 2, 9))
