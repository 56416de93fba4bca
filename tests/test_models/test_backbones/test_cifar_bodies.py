import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models.backbones.resnet import BasicBlock, Bottleneck
from torch import nn

from mmresattn.models import CIFARDenseNet, CIFARResNet, CIFARResNeXt, CIFARWideResNet
from mmresattn.models.backbones.cifar_bodies import WideUnit
from mmresattn.models.layers import record_attention


@pytest.mark.parametrize(
    ('body', 'kwargs', 'channels', 'published'),
    [
        (CIFARResNet, dict(depth=20), 64, 0.27),  # He et al., table 6
        (CIFARWideResNet, dict(depth=28, widen_factor=10), 640, 36.5),  # Zagoruyko and Komodakis, table 4
        (CIFARWideResNet, dict(depth=40, widen_factor=4), 256, 8.9),
        (CIFARDenseNet, dict(depth=100, growth_rate=12), 342, 0.8),  # Huang et al., table 2
        (CIFARDenseNet, dict(depth=190, growth_rate=40), 2190, 25.6),
        (CIFARResNeXt, dict(depth=29, groups=8, width_per_group=64), 1024, 34.4),  # Xie et al., table 7
    ],
)
def test_size_is_the_published_one(body, kwargs, channels, published):
    """Millions of parameters with a linear layer for 10 classes."""
    with torch.device('meta'):
        model = body(**kwargs)
        (out,) = model(torch.empty(2, 3, 32, 32))
    assert out.shape == (2, channels, 8, 8)
    millions = (sum(p.numel() for p in model.parameters()) + 10 * channels + 10) / 1e6
    digits = 2 if published < 0.5 else 1
    assert round(millions, digits) == published


@pytest.mark.parametrize(
    ('depth', 'block', 'layers'),
    [(20, BasicBlock, 20), (32, BasicBlock, 32), (44, Bottleneck, 65), (110, Bottleneck, 164)],
)
def test_deep_resnets_are_made_of_bottlenecks(depth, block, layers):
    with torch.device('meta'):
        model = CIFARResNet(depth=depth)
    blocks = [module for module in model.modules() if isinstance(module, block)]
    assert len(blocks) == (depth - 2) // 2
    convs = [name for name, m in model.named_modules() if isinstance(m, torch.nn.Conv2d) and 'downsample' not in name]
    assert len(convs) + 1 == layers  # and the linear layer


@pytest.mark.parametrize(
    ('body', 'kwargs'), [(CIFARWideResNet, dict(depth=10, widen_factor=1)), (CIFARDenseNet, dict(depth=10))]
)
def test_nothing_is_built_past_the_last_output(body, kwargs):
    torch.manual_seed(0)
    whole, cut = body(**kwargs, out_indices=(0, 1, -1)), body(**kwargs, out_indices=[-2])
    names = {name for name, _ in whole.named_children()}
    assert names - {name for name, _ in cut.named_children()} == {'stage3', 'norm'}
    cut.load_state_dict(whole.state_dict(), strict=False)
    whole.eval()
    cut.eval()
    x = torch.randn(2, 3, 16, 16)
    outs = whole(x)
    assert len(outs) == 3 and torch.equal(cut(x)[0], outs[1])
    assert (outs[2] >= 0).all() and (outs[1] < 0).any()  # the last one alone is activated
    with pytest.raises(ValueError, match='out_indices are from -3 to 2'):
        body(**kwargs, out_indices=3)


@pytest.mark.parametrize(('channels', 'stride'), [(4, 1), (6, 2)])
def test_wide_unit_is_the_published_one(channels, stride):
    """Against functions of PyTorch; where the shape changes, the shortcut projects the activated input."""
    torch.manual_seed(0)
    unit = WideUnit(4, channels, stride, 0.5, dict(type='BN')).double().eval()
    for norm in (unit.norm1[0], unit.norm2[0]):
        torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)

    def activated(x, norm):
        scale = (1 + norm.eps) ** -0.5  # of the initial statistics
        return (x * scale + norm.bias[:, None, None]).clamp(min=0)

    with torch.no_grad():
        h = activated(x, unit.norm1[0])
        out = F.conv2d(h, unit.conv1.weight, stride=stride, padding=1)
        out = F.conv2d(activated(out, unit.norm2[0]), unit.conv2.weight, padding=1)
        out = out + (x if stride == 1 else F.conv2d(h, unit.shortcut.weight, stride=2))
        torch.testing.assert_close(unit(x), out)
        unit.train()
        assert not torch.equal(unit(x), unit(x))  # dropout


@pytest.mark.parametrize('body', [CIFARResNet, CIFARResNeXt, CIFARWideResNet, CIFARDenseNet])
def test_other_depths_are_refused(body):
    with pytest.raises(ValueError, match=rf'depth of a {body.__name__} is \dn \+ \d.*not 27'):
        body(depth=27)


def test_attention_in_the_units_of_a_wide_resnet():
    """The paper's place in Wide ResNets: the first convolution of every unit, here of one stage."""
    torch.manual_seed(0)
    attention = dict(type='AttentionAugmentedConv', stages=(False, [0, -1], False), size=4, heads=2, min_head_keys=2)
    net = CIFARWideResNet(depth=16, widen_factor=1, drop_rate=0.0, attention=attention).eval()
    with record_attention(net) as maps:
        (out,) = net(torch.randn(2, 3, 8, 8))
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        f'stage2.{unit}.conv1.map': (2, 2, 16, 16) for unit in (0, 1)
    }
    # With its attention channels gone, a unit is one of narrower first convolutions.
    unit = net.stage2[1]
    with torch.no_grad():
        unit.conv1.out.weight.zero_()
        x = torch.randn(2, 32, 4, 4)
        h = unit.norm2(F.pad(unit.conv1.conv(unit.norm1(x)), (0, 0, 0, 0, 0, unit.conv1.values)))
        assert torch.allclose(unit(x), unit.conv2(h) + x, atol=1e-6)


SMALLEST = [
    (CIFARResNet, dict(depth=8, base_channels=4)),
    (CIFARResNeXt, dict(depth=11, groups=2, width_per_group=2)),
    (CIFARWideResNet, dict(depth=10, widen_factor=1)),
    (CIFARDenseNet, dict(depth=10, growth_rate=2)),
]


@pytest.mark.parametrize(('body', 'kwargs'), SMALLEST)
def test_images_that_do_not_fit_are_named(body, kwargs):
    net = body(**kwargs)
    side = 4 if body is CIFARDenseNet else 1
    with pytest.raises(ValueError, match='Expected more than 1 value per channel'):
        net(torch.zeros(1, 3, side, side))
    assert net.eval() is net and net.train() is net
    assert net.eval()(torch.zeros(1, 3, side, side))[0].shape[2:] == (1, 1)
    with pytest.raises(ValueError, match=r'shape \(N, 3, H, W\), got \(1, 1, 8, 8\)'):
        net(torch.zeros(1, 1, 8, 8))
    if side > 1:
        with pytest.raises(ValueError, match=f'{side - 1}x9 are too small.*{side}x{side}'):
            net(torch.zeros(1, 3, side - 1, 9))
        assert body(**kwargs, out_indices=0).min_size == 2


@pytest.mark.parametrize(('body', 'kwargs'), SMALLEST)
def test_stages_count_from_the_end_too(body, kwargs):
    assert [out.shape[2:] for out in body(**kwargs, out_indices=(-3, -1))(torch.zeros(2, 3, 8, 8))] == [
        (4, 4) if body is CIFARDenseNet else (8, 8),  # its transition belongs to the stage
        (2, 2),
    ]


@pytest.mark.parametrize(
    ('body', 'kwargs', 'message'),
    [
        (CIFARResNet, dict(depth=8, num_stages=4), 'strides has one integer of at least 1 for each of the 4 stages'),
        (CIFARResNet, dict(depth=8, strides=(1, 2, 0)), 'strides has one integer of at least 1 for each of the 3'),
        (CIFARResNet, dict(depth=8, frozen_stages=4), 'frozen_stages is an integer from -1 to 3, not 4'),
        (CIFARResNet, dict(depth=8, base_channels=0), 'base_channels'),
        (CIFARResNeXt, dict(groups=0), 'groups'),
        (CIFARWideResNet, dict(strides=(1, 2)), 'strides has one integer'),
        (CIFARWideResNet, dict(widen_factor=0), 'widen_factor'),
        (CIFARDenseNet, dict(growth_rate=0), 'growth_rate'),
        (CIFARDenseNet, dict(in_channels=0), 'in_channels'),
        (CIFARDenseNet, dict(frozen_stages=4), 'frozen_stages is an integer from -1 to 3, not 4'),
    ],
)
def test_arguments_that_do_not_fit_are_named(body, kwargs, message):
    with pytest.raises(ValueError, match=message), torch.device('meta'):
        body(**kwargs)


@pytest.mark.parametrize('frozen_stages', range(-1, 4))
@pytest.mark.parametrize('body', [CIFARWideResNet, CIFARDenseNet])
def test_frozen_stages_and_norm_eval(body, frozen_stages):
    with torch.device('meta'):
        backbone, evaluated = body(frozen_stages=frozen_stages), body(norm_eval=True).train()
    assert backbone.train() is backbone
    places = dict(stem=0, norm=3) | {f'stage{i}': i for i in (1, 2, 3)}
    assert places.keys() == dict(backbone.named_children()).keys()
    for name, place in places.items():
        module, frozen = getattr(backbone, name), place <= frozen_stages
        assert module.training is not frozen and all(p.requires_grad is not frozen for p in module.parameters())
    norms = [module for module in evaluated.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms) and evaluated.stem.training
