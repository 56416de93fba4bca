import re

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmresattn.models.backbones.pay_attention_vgg import ARCHITECTURES, PayAttentionNet
from mmresattn.models.layers import PreActBottleneck, attention_maps, edit_attention, record_attention
from mmresattn.models.necks.pay_attention import PayAttention
from tests.conftest import ROOT

# From the authors' files.
CLASSIFIERS = {
    'vgg-att1-pc': (19_714_123, 19_760_293),
    'vgg-att1-dp': (19_713_610, 19_759_780),
    'vgg-att2-pc': (19_720_780, 19_813_030),
    'vgg-att2-dp': (19_719_754, 19_812_004),
    'vgg-att2-indep-pc': (19_720_790, 19_813_130),
    'vgg-att3-pc': (19_856_461, 19_971_751),
    'vgg-att3-pc-up': (19_860_045, 19_998_375),
    'vgg': (14_991_946, 15_038_116),
}
SMALL = dict(stages=([4], [('max', 2), 6]), tail=[('max', 2), 6], global_channels=6, gates=None)


def small(**kwargs):
    torch.manual_seed(0)
    net = PayAttentionNet(**{'arch': SMALL, 'out_indices': (0, 1), **kwargs})
    net.init_weights()
    return net.double().eval()


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(('name', 'count'), CLASSIFIERS.items())
@pytest.mark.parametrize('classes', [10, 100])
def test_parameters_of_the_classifiers(name, count, classes):
    cfg = Config.fromfile(ROOT / f'configs/pay_attention/{name}_cifar{classes}.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert parameters(model) == count[classes == 100]


def conv(cin, cout, k=3, bias=True):
    return k * k * cin * cout + (cout if bias else 0)


def test_parameters_and_outputs_of_the_backbones():
    tail = 2 * (conv(512, 512) + 2 * 512) + 512 * 512 + 512  # two convolutions and a linear layer up to g
    pan = tail + 513  # the same up to the g of the gate, and its u
    # He et al.'s ResNet-164 without its last normalisation and classifier; then the layers up to g.
    resnet = 1_703_258 - 2 * 256 - 2570 + 2 * 256 + conv(256, 256) + 2 * 256 + 256 * 256 + 256
    facts = {
        'vgg-att': (19_707_456, [(256, 32, 32), (512, 16, 16), (512, 8, 8), (512, 1, 1)]),
        'vgg': (14_991_946 - 2 * 512 - 5130, [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 1, 1)]),
        'vgg-gap': (19_707_456 - tail, [(256, 32, 32), (512, 16, 16), (512, 8, 8)]),
        'vgg-pan': (19_707_456 + pan, [(256, 32, 32), (512, 16, 16), (512, 8, 8), (512, 1, 1)]),
        'resnet164-att': (resnet, [(64, 32, 32), (128, 16, 16), (256, 8, 8), (256, 1, 1)]),
    }  # fmt: skip
    assert set(facts) == set(ARCHITECTURES)
    for arch, (count, shapes) in facts.items():
        with torch.device('meta'):
            net = PayAttentionNet(arch).eval()
            outs = net(torch.empty(2, 3, 32, 32))
        assert parameters(net) == count
        assert [tuple(out.shape) for out in outs] == [(2, *shape) for shape in shapes]
        assert f'{count:,}' in PayAttentionNet.__doc__ and re.search(rf'{arch} +\| {count:,}', PayAttentionNet.__doc__)


def test_layers_of_vgg_in_their_order():
    """Fifteen convolutions with bias, eps 1e-3, the dropout after each, and where the poolings are."""
    widths = [64, 64, 128, 128, 256, 256, 256] + 8 * [512]
    dropouts = {1: 0.3, 3: 0.4, 5: 0.4, 6: 0.4, 8: 0.4, 9: 0.4, 11: 0.4, 12: 0.4, 14: 0.4, 15: 0.4}
    expected = []
    for i, width in enumerate(widths, 1):
        expected.append(('conv', width))
        if i in dropouts:
            expected.append(('drop', dropouts[i]))
        if i in (7, 10, 13, 14):
            expected.append(('pool', 2))
    expected += [('pool', 'to 1x1'), ('drop', 0.5), ('linear', 512)]
    with torch.device('meta'):
        net = PayAttentionNet('vgg-att')
    seen = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            assert module.kernel_size == (3, 3) and module.padding == (1, 1) and module.bias is not None
            seen.append(('conv', module.out_channels))
        elif isinstance(module, nn.BatchNorm2d):
            assert module.eps == 1e-3 and seen[-1] == ('conv', module.num_features)
        elif isinstance(module, nn.Dropout):
            seen.append(('drop', module.p))
        elif isinstance(module, nn.MaxPool2d):
            assert module.ceil_mode
            seen.append(('pool', module.kernel_size))
        elif isinstance(module, nn.AdaptiveMaxPool2d):
            seen.append(('pool', 'to 1x1'))
        elif isinstance(module, nn.Linear):
            seen.append(('linear', module.out_features))
    assert seen == expected


def test_resnet_has_its_stride_on_the_first_convolution_and_gives_raw_sums():
    with torch.device('meta'):
        net = PayAttentionNet('resnet164-att')
    units = [module for module in net.modules() if isinstance(module, PreActBottleneck)]
    assert 3 * len(units) + 2 == 164
    assert [i for i, unit in enumerate(units) if unit.conv1.stride == (2, 2)] == [18, 36]
    assert all(unit.conv2.stride == (1, 1) for unit in units)
    arch = dict(
        stages=([('stem', 4), ('unit', 8)], [('unit', 8, 2)]),
        tail=[('norm',), ('max', 2), 8],
        global_channels=8,
        gates=None,
    )
    net = small(arch=arch)
    low, high, g = net(torch.randn(2, 3, 8, 8).double())
    assert (low < 0).any() and (high < 0).any() and high.shape[2:] == (4, 4) and g.shape == (2, 8, 1, 1)


def test_numbers_of_a_small_network():
    """Against the same computed by functions, batch normalisation in its initial state."""
    net = small()
    image = torch.randn(2, 3, 7, 9).double()
    w = dict(net.named_parameters())

    def block(x, name):
        return F.relu(F.conv2d(x, w[name + '.weight'], w[name + '.bias'], padding=1) / (1 + 1e-3) ** 0.5)

    low = block(image, 'stage1.0')
    high = block(F.max_pool2d(low, 2, ceil_mode=True), 'stage2.1')
    last = block(F.max_pool2d(high, 2, ceil_mode=True), 'to_global.1')
    g = F.linear(last.amax((2, 3)), w['to_global.7.weight'], w['to_global.7.bias'])
    outs = net(image)
    assert [tuple(out.shape) for out in outs] == [(2, 4, 7, 9), (2, 6, 4, 5), (2, 6, 1, 1)]
    for out, expected in zip(outs, (low, high, g[:, :, None, None])):
        assert torch.allclose(out, expected, rtol=1e-12, atol=1e-12)


def test_initialisation_is_the_authors():
    torch.manual_seed(0)
    net = PayAttentionNet(dict(SMALL, stages=([128], [('max', 2), 128])), out_indices=())
    net.init_weights()
    weight = net.stage2[1].weight
    assert weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert weight.mean().abs() < 1e-3 and not net.stage2[1].bias.any()


def test_gate_of_the_progressive_network():
    gated = small(arch=dict(SMALL, gates=([('max', 4), 4], None)))
    assert list(attention_maps(gated)) == ['stage1.gate.map']
    image = torch.randn(2, 3, 16, 16).double()
    with record_attention(gated) as maps:
        low = gated(image)[0]
    gate = gated.stage1.gate
    ungated = gated.stage1[:3](image)
    u = gate.score.weight.flatten()
    scores = torch.einsum('nchw,c->nhw', ungated + gate.to_global(ungated), u) + gate.score.bias
    attention = 1 / (1 + (-scores[:, None]).exp())
    assert torch.allclose(maps['stage1.gate.map'], attention, rtol=1e-12)
    assert torch.allclose(low, attention * ungated, rtol=1e-12)
    with edit_attention(gated, {'stage1.gate.map': torch.ones_like}):
        opened = gated(image)
    plain = small()
    plain.load_state_dict(gated.state_dict(), strict=False)
    for a, b in zip(opened, plain(image)):
        assert torch.equal(a, b)


@pytest.mark.parametrize('average', [False, True])
def test_gradients_at_forks(average):
    """By hand, piece by piece: l1 and l2 feed attention and the next layer, g feeds two levels."""
    net = small(average_gradients=average)
    torch.manual_seed(1)
    neck = PayAttention((4, 6, 6), score='dp', project='local', average_gradients=average).double().eval()
    image = torch.randn(3, 3, 8, 8).double()
    weights = torch.randn(2, 6).double()

    def loss(outs):
        return sum((out.pow(2) * w).sum() for out, w in zip(outs, weights))

    parts = [net.stage1, net.stage2, net.to_global, neck]
    loss(neck(net(image))).backward()
    seen = [[p.grad.clone() for p in part.parameters()] for part in parts]
    for part in parts:
        part.zero_grad()

    l1 = net.stage1(image)
    l1_leaf = l1.detach().requires_grad_()
    l2 = net.stage2(l1_leaf)
    l2_leaf = l2.detach().requires_grad_()
    g = net.to_global(l2_leaf)
    g_leaves = [g.detach().flatten(1).requires_grad_() for _ in range(2)]
    l1_level, l2_level = (leaf.detach().requires_grad_() for leaf in (l1, l2))
    loss([neck.level1(l1_level, g_leaves[0]), neck.level2(l2_level, g_leaves[1])]).backward()
    share = 0.5 if average else 1
    g.flatten(1).backward(share * (g_leaves[0].grad + g_leaves[1].grad))
    l2.backward(share * (l2_leaf.grad + l2_level.grad))
    l1.backward(share * (l1_leaf.grad + l1_level.grad))
    for part, gradients in zip(parts, seen):
        for p, gradient in zip(part.parameters(), gradients):
            assert gradient.any() and torch.allclose(p.grad, gradient, rtol=1e-10, atol=1e-12)


def test_averaging_at_a_gate():
    grads = {}
    for average in (False, True):
        net = small(arch=dict(SMALL, gates=([('max', 4), 4], None)), out_indices=(), average_gradients=average)
        net(torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16).double())[0].pow(2).sum().backward()
        grads[average] = {name: p.grad for name, p in net.named_parameters()}
    for name, gradient in grads[True].items():  # halved once, at the features that are gated
        share = 0.5 if name.startswith('stage1') and 'gate' not in name else 1
        assert gradient.any() and torch.allclose(gradient, share * grads[False][name], rtol=1e-10, atol=1e-14)


def test_averaging_changes_no_output_and_needs_no_gradient():
    image = torch.randn(2, 3, 8, 8).double()
    with torch.no_grad():
        averaged = small(average_gradients=True)(image)
    for a, b in zip(averaged, small()(image)):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='vgg19'), "Unknown architecture 'vgg19'"),
        (dict(arch=dict(stages=([4],))), r"missing: \['gates', 'global_channels', 'tail'\]"),
        (dict(arch=dict(SMALL, depth=3)), r"unknown: \['depth'\]"),
        (dict(arch=dict(SMALL, stages=([4], [('pool', 2)]))), r"\('pool', 2\) is no layer"),
        (dict(arch=dict(SMALL, stages=([4], ['conv4']))), "'conv4' is no layer"),
        (dict(arch=dict(SMALL, stages=([4], [0]))), 'channels is an integer of at least 1, not 0'),
        (dict(arch=dict(SMALL, global_channels=0)), 'global_channels is an integer of at least 1, not 0'),
        (dict(in_channels=0), 'in_channels is an integer of at least 1, not 0'),
        (dict(arch=dict(SMALL, gates=(None,))), 'one entry for each of the 2 stages, not 1'),
        (dict(out_indices=(2,)), 'out_indices are from -2 to 1'),
        (dict(out_indices=(1, 1)), 'name a stage twice'),
        (dict(arch=dict(SMALL, global_channels=None), out_indices=()), 'Nothing to return'),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        small(**kwargs)


def test_wrong_images_are_named():
    net = small()
    assert net.min_size == 4 and net(torch.zeros(1, 3, 4, 5).double())[-1].shape == (1, 6, 1, 1)
    with pytest.raises(ValueError, match='3x8 are too small: this network needs at least 4x4'):
        net(torch.zeros(1, 3, 3, 8).double())
    with pytest.raises(ValueError, match=r'Expected images of shape \(N, 3, H, W\), got \(1, 1, 8, 8\)'):
        net(torch.zeros(1, 1, 8, 8).double())


def test_smallest_sizes():
    sizes = {'vgg-att': 16, 'vgg': 16, 'vgg-gap': 4, 'vgg-pan': 16, 'resnet164-att': 5}
    for arch, size in sizes.items():
        with torch.device('meta'):
            net = PayAttentionNet(arch).eval()
            net(torch.empty(1, 3, size, size))
        assert net.min_size == size
    assert small(arch=dict(SMALL, stages=([4, ('to', 8)], [('max', 2), 6]))).min_size == 1  # any size is brought to 8x8


def test_a_single_value_is_named():
    net = small().train()
    assert net(torch.randn(1, 3, 8, 8).double())[-1].shape == (1, 6, 1, 1)
    with pytest.raises(ValueError, match='Expected more than 1 value per channel'):
        net(torch.randn(1, 3, 4, 4).double())


def test_a_tail_that_is_not_built_asks_for_nothing():
    net = small(arch=dict(SMALL, global_channels=None))
    assert net.min_size == 2 and net(torch.zeros(1, 3, 2, 2).double())[-1].shape == (1, 6, 1, 1)
