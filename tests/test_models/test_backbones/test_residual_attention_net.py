import itertools
import re
from dataclasses import asdict, replace
from functools import cache

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from mmresattn.models.backbones.residual_attention_net import ARCHITECTURES, ResidualAttentionNet, resolve_arch
from mmresattn.models.layers import AttentionModule, PreActBottleneck, edit_attention, record_attention
from tests.conftest import WithoutBatchNorm, record_if_any

# Parameters with a head of 1000 or 10 classes, multiply-adds with it at 224 or 32, convolutions and BatchNorms.
FACTS = {
    'attention56': (31_810_728, 6_270_836_736, 110, 107),
    'attention92': (52_466_344, 10_533_789_696, 179, 176),
    'attentionnext56': (31_318_824, 6_419_106_816, 110, 107),
    'attentionnext92': (52_102_952, 10_704_337_920, 179, 173),
    'attentioninception56': (31_278_216, 6_176_606_208, 242, 173),
    'attention92-resnetv2': (52_466_216, 10_533_789_696, 179, 175),  # Attention-92 without the norm of its stem
    'attentionnext92-resnext': (52_102_952, 10_704_337_920, 179, 173),
    'attention-resnet18': (16_292_776, 2_433_044_480, 56, 53),
    'attention-resnet34': (28_893_864, 4_424_028_160, 78, 74),
    'attention-resnet50': (36_844_584, 6_354_329_600, 112, 108),
    'attention-resnet101': (68_837_416, 11_627_225_088, 187, 180),
    'attention-resnet152': (99_407_400, 17_502_232_576, 279, 268),
    'attention56-cifar': (1_030_394, 122.83e6, None, None),
    'attention92-cifar': (1_841_274, 211.91e6, None, None),
    'attention128-cifar': (2_652_154, 301.00e6, None, None),
    'attention164-cifar': (3_463_034, 390.09e6, None, None),
    'attention236-cifar': (5_084_794, 568.27e6, None, None),
    'attention452-cifar': (8_511_994, 958.07e6, None, None),
    'resnet164-cifar': (1_703_258, 247_646_720, 166, 163),
}
SMALL = dict(base='attention56', stem_channels=16, channels=(16, 16, 32, 32))
SMALL_NEXT = dict(base='attentionnext56', stem_channels=16, channels=(64, 64, 64, 64))
SMALL_INCEPTION = dict(SMALL, base='attentioninception56')
SMALL_RESNET = dict(base='resnet164-cifar', stem_channels=8, channels=(16, 16, 32), units_after=(1, 2, 1))
SMALL_RESNETS = [
    dict(base='attention-resnet50', stem_channels=8, channels=(8, 16, 16, 16), units_after=(0, 1, 0, 0)),
    dict(base='attention-resnet18', stem_channels=8, channels=(8, 8, 16, 16)),
]
NARROW_MASKS = dict(SMALL, mask_widths=(3, 5, None, None))
BASIC = ('attention-resnet18', 'attention-resnet34')


def small(**kwargs):
    torch.manual_seed(0)
    return ResidualAttentionNet(kwargs.pop('arch', SMALL), **kwargs)


@cache
def on_meta(arch):
    with torch.device('meta'):
        return ResidualAttentionNet(arch, out_indices=range(len(ARCHITECTURES[arch].channels))).eval()


@torch.no_grad()
@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_official_numbers(arch):
    parameters, macs, convs, norms = FACTS[arch]
    cifar = arch.endswith('cifar')
    classes, side = (10, 32) if cifar else (1000, 224)
    channels = list(ARCHITECTURES[arch].channels)
    assert channels == ([64, 128, 256] if cifar else [64, 128, 256, 512] if arch in BASIC else [256, 512, 1024, 2048])
    backbone = on_meta(arch)
    with torch.device('meta'):
        head = nn.Linear(channels[-1], classes)
        image = torch.empty(1, 3, side, side)
    with FlopCounterMode(display=False) as counter, WithoutBatchNorm(), record_if_any(backbone) as maps:
        outs = backbone(image)
        head(outs[-1].mean((2, 3)))
    modules = [*backbone.modules()]
    assert sum(p.numel() for p in itertools.chain(backbone.parameters(), head.parameters())) == parameters
    assert counter.get_total_flops() / 2 == pytest.approx(macs, rel=0 if convs else 1e-4)
    if convs:
        assert sum(isinstance(module, nn.Conv2d) for module in modules) == convs
        assert sum(isinstance(module, _BatchNorm) for module in modules) == norms
    sides = [32, 16, 8] if cifar else [56, 28, 14, 7]
    assert [out.shape for out in outs] == [(1, c, s, s) for c, s in zip(channels, sides)]
    for name, attention in maps.items():  # the mask has the shape of its stage
        assert attention.shape == outs[int(name[5]) - 1].shape
    if not cifar:
        with WithoutBatchNorm():
            outs = backbone(torch.empty(1, 3, 320, 320, device='meta'))
        assert [out.shape[2:] for out in outs] == [(80, 80), (40, 40), (20, 20), (10, 10)]


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_depth_on_the_trunk_is_in_the_name(arch):
    """Weighted layers from the image to the classifier, masks aside: 3 in a unit (2 in a basic block), and the stem and
    the classifier."""
    backbone = on_meta(arch)
    in_masks = {unit for module in backbone.modules() if isinstance(module, AttentionModule)
                for unit in module.mask.modules()}  # fmt: skip
    units = [m for m in backbone.modules() if hasattr(m, 'preactivation') and m not in in_masks]
    assert len(units) == sum(backbone.arch.units())
    assert (2 if arch in BASIC else 3) * len(units) + 2 == int(re.search(r'\d+', arch)[0])


@pytest.mark.parametrize(('arch', 'blocks', 'basic', 'masks'), [
    ('attention-resnet18', (2, 2, 2, 2), True, (1, 1, 1)), ('attention-resnet34', (3, 4, 6, 3), True, (1, 1, 2)),
    ('attention-resnet50', (3, 4, 6, 3), False, (1, 1, 2)), ('attention-resnet101', (3, 4, 23, 3), False, (1, 1, 5)),
    ('attention-resnet152', (3, 8, 36, 3), False, (1, 2, 8)),
])  # fmt: skip
def test_numbers_of_resnets_with_masks_by_hand(arch, blocks, basic, masks):
    """A ResNet (He et al., 2016, table 1) and its masks, layer by layer at 224."""
    parameters, macs = 64 * 3 * 49 + 128, 64 * 3 * 49 * 112**2

    def add(convs, norms, side):
        nonlocal parameters, macs
        parameters += sum(convs) + 2 * sum(norms)
        macs += sum(convs) * side**2

    def unit(before, width, side, side_before):
        narrow = width if basic else width // 4
        if basic:
            add([9 * before * width, 9 * width**2], [width, width], side)
        else:
            add([before * narrow], [narrow], side_before)  # the stride is on the 3x3 convolution
            add([9 * narrow**2, narrow * width], [narrow, width], side)
        if before != width:
            add([before * width], [width], side)

    before, side_before = 64, 56
    for i, n in enumerate(blocks):
        width, side = (64 if basic else 256) * 2**i, 56 >> i
        unit(before, width, side, side_before)
        for _ in range(n - 1):
            unit(width, width, side, side)
        for _ in range(masks[i] if i < 3 else 0):
            for level in range(1, 4 - i):  # r units down, one to skip and r up, and 2r at the lowest level
                for _ in range(3 if level < 3 - i else 2):
                    unit(width, width, side >> level, side >> level)
            add([width**2, width**2], [width], side)
        before, side_before = width, side
    assert FACTS[arch][:2] == (parameters + 1000 * before + 1000, macs + 1000 * before)


def test_attentioninception56_is_as_large_as_the_paper_says():
    """31.9 M parameters; and at 299, where the paper tests it, 1.8 times the multiply-adds that it prints (6.3 G)."""
    with torch.device('meta'):
        backbone, head = ResidualAttentionNet('attentioninception56').eval(), nn.Linear(2048, 1000)
        image = torch.empty(1, 3, 299, 299)
    with FlopCounterMode(display=False) as counter, WithoutBatchNorm():
        head(backbone(image)[0].mean((2, 3)))
    assert FACTS['attentioninception56'][0] == pytest.approx(31.9e6, rel=0.03)
    assert FACTS['attentioninception56'][1] == pytest.approx(6.3e9, rel=0.03)
    # Spelt out: a unit has 5/16 of its channels between its 1x1 convolutions and three 3x3 convolutions of 1/8.
    macs, sides = 64 * 3 * 49 * 150**2 + 2048 * 1000, (75, 38, 19, 10)
    for i, (channels, side) in enumerate(zip((256, 512, 1024, 2048), sides)):
        before, side_before = (channels // 2, sides[i - 1]) if i else (64, 75)
        eighth = channels // 8
        middle, last = 27 * eighth**2, 5 * channels**2 // 16
        macs += before * 2 * eighth * side_before**2  # what the stride does not reach
        macs += (before * eighth // 2 + before * channels + middle + last) * side**2
        unit = 2 * last + middle
        positions = [(side >> level) ** 2 for level in range(4 - i)]
        for level in range(1, 3 - i):
            macs += 3 * unit * positions[level]
        macs += (2 * unit * positions[-1] + (4 * unit + 2 * channels**2) * side**2) if i < 3 else 2 * unit * side**2
    assert counter.get_total_flops() / 2 == macs == 11_379_873_536


@pytest.mark.parametrize(
    ('arch', 'lowest'), [('attention56', 7), ('attentioninception56', 7), ('attention56-cifar', 4)]
)
def test_lowest_map_of_every_mask(arch, lowest):
    with torch.device('meta'):
        backbone = ResidualAttentionNet(arch).eval()
    seen = []
    for module in backbone.modules():
        if isinstance(module, AttentionModule):
            module.mask.bottom.register_forward_hook(lambda m, args, out: seen.append(out.shape[-1]))
    side = 32 if arch.endswith('cifar') else 224
    backbone(torch.empty(1, 3, side, side, device='meta'))
    assert seen == [lowest] * 3


def test_a_dict_is_taken_wherever_a_name_is():
    named = ARCHITECTURES['attention92']
    assert resolve_arch('attention92') == resolve_arch(asdict(named)) == resolve_arch(named) == named
    assert resolve_arch(dict(base='attention56', r=2)) == replace(ARCHITECTURES['attention56'], r=2)
    fields = dict(base='attention452-cifar', bottom_units=None)
    with torch.device('meta'):
        backbone = ResidualAttentionNet(fields)
    assert sum(p.numel() for p in backbone.parameters()) + 2570 == 10_181_242  # 2r = 6 at the lowest level


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='attention57'), r"Unknown architecture 'attention57'.*attention56.*attention452-cifar"),
        (dict(arch=dict(base='attention56', depth=3)), r"unknown: \['depth'\]"),
        (dict(arch=dict(unit='preact')), r"missing: \['channels'"),
        (dict(arch=dict(base='attention56', unit='conv')), r"unit.*\['preact', .*'inception'\], not 'conv'"),
        (dict(arch=dict(base='attention56', stem='vgg')), r"stem.*\['imagenet', 'resnet', .*'conv'\], not 'vgg'"),
        (dict(arch=dict(base='attention56', modules=(1, 1, 1))), 'modules has one integer .* each of the 4 stages'),
        (dict(arch=dict(base='attention56', mask_widths=(7, 13, 17))), 'mask_widths has one integer .* 4 stages'),
        (dict(arch=dict(base='attention56', mask_widths=(1, 0, 1, 1))), 'mask_widths has one integer of at least 1'),
        (dict(attention='pixel'), "'mixed', 'channel', 'spatial'"),
        (dict(mask='unet'), "'encoder_decoder' or 'local_conv', not 'unet'"),
        (dict(out_indices=(0, 4)), r'from -4 to 3.*\[0, 4\]'),
        (dict(out_indices=()), 'out_indices'),
        (dict(out_indices=(-1, 3)), 'twice'),
        (dict(frozen_stages=5), 'from -1 to 4'),
        (dict(strides=(1, 2, 2)), '4 stages'),
        (dict(dilations=(1, 1)), '4 stages'),
        (dict(dilations=(1, 1, 0, 1)), 'dilations has one integer of at least 1'),
        (dict(strides=2), 'strides has one integer of at least 1'),
        (dict(arch=dict(base='attention56', channels=(256, 512, 0, 2048))), 'channels has one integer of at least 1'),
        (dict(arch=dict(base='attention56', channels=256)), 'channels has one integer for each stage'),
        (dict(arch=dict(base='attention56', modules=(1, 1, -1, 0))), 'modules has one integer of at least 0'),
        (dict(arch=dict(base='attention56', poolings=(3, 2, 1.5, 0))), 'poolings has one integer of at least 0'),
        (dict(arch=dict(base='attention56', stem_channels=0)), 'stem_channels is an integer of at least 1'),
        (dict(arch=dict(base='attention56', t=-1)), 't is an integer of at least 0'),
        (dict(arch=dict(base='attention56', bottom_units=-1)), 'bottom_units is an integer of at least 0'),
        (dict(arch=dict(base=[])), 'Unknown architecture'),
        (dict(arch=None), 'An architecture is a name.*or a dict, not None'),
        (dict(arch='resnet164-cifar', attention='pixel'), "'mixed', 'channel', 'spatial'"),  # nothing to use it
        (dict(out_indices=0.5), 'out_indices are from -4 to 3'),
        (dict(frozen_stages=0.5), 'frozen_stages is an integer'),
        (dict(in_channels=0), 'in_channels is an integer of at least 1'),
    ],
)
def test_arguments_that_do_not_fit(kwargs, message):
    with pytest.raises(ValueError, match=message), torch.device('meta'):
        ResidualAttentionNet(**kwargs)


def test_inputs_that_do_not_fit():
    backbone = small()
    with pytest.raises(ValueError, match=r'\(N, 3, H, W\), got \(1, 1, 64, 64\)'):
        backbone(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ValueError, match='30x64 are too small.*31x31'):
        backbone(torch.zeros(2, 3, 30, 64))


@pytest.mark.parametrize('arch', [SMALL, SMALL_NEXT, SMALL_INCEPTION, SMALL_RESNET, *SMALL_RESNETS,
                                  dict(base='attention56-cifar', channels=(16, 16, 16)),
                                  dict(base='attention56', channels=(16,) * 4, strides=(2, 1, 2, 1))])  # fmt: skip
@pytest.mark.parametrize('kwargs', [{}, dict(mask='local_conv'), dict(mask='local_conv', attention='spatial'),
                                    dict(dilations=2), dict(out_indices=1)])  # fmt: skip
def test_the_stated_minimum_is_the_true_one(monkeypatch, arch, kwargs):
    if 'dilations' in kwargs:
        kwargs = dict(dilations=[2] * len(resolve_arch(arch).channels))
    backbone = small(arch=arch, **kwargs).eval()
    n = backbone.min_size
    assert all(torch.isfinite(out).all() for out in backbone(torch.randn(1, 3, n, n)))
    # Below, torch itself fails, or maps vanish: the minimum is no guess.
    backbone._check_input = lambda x: None
    monkeypatch.setattr(AttentionModule, '_check_size', lambda self, x: None)
    if n > 1:
        with pytest.raises((RuntimeError, ValueError)):
            out = backbone(torch.randn(1, 3, n - 1, n - 1))
            raise ValueError('vanished') if out[-1].numel() == 0 else AssertionError(f'{n - 1} works too')


@pytest.mark.parametrize('size', [(31, 31), (33, 47), (64, 51), (97, 32)])
@pytest.mark.parametrize('arch', [SMALL, SMALL_NEXT, SMALL_INCEPTION])
def test_any_size(arch, size):
    backbone = small(arch=arch, out_indices=(0, 1, 2, 3)).eval()
    outs = backbone(torch.randn(1, 3, *size))
    sides = [(side - 1) // 2 + 1 for side in size]
    sides = [side // 2 for side in sides]
    for out in outs:
        assert list(out.shape[2:]) == sides
        sides = [(side - 1) // 2 + 1 for side in sides]


def test_batch_of_one_fails_only_where_batchnorm_cannot_train():
    one = torch.randn(1, 3, 31, 31)
    with pytest.raises(ValueError, match='Expected more than 1 value per channel'):
        small()(one)
    with pytest.raises(ValueError, match='Expected more than 1 value per channel'):
        small(frozen_stages=2)(one)  # stages 1 and 2 are in evaluation mode
    for backbone, x in [
        (small(), one.repeat(2, 1, 1, 1)),
        (small(), torch.randn(1, 3, 64, 64)),  # the lowest maps are 2x2
        (small(), torch.randn(1, 3, 31, 64)),
        (small().eval(), one),
        (small(norm_eval=True).train(), one),
        (small(norm_cfg=dict(type='GN', num_groups=2)), one),
        (small(frozen_stages=4), one),
    ]:
        backbone(x)


@pytest.mark.parametrize('arch', [SMALL, SMALL_NEXT, SMALL_INCEPTION])
def test_outputs_are_raw_but_for_the_last(arch):
    backbone = small(arch=arch, out_indices=(0, 1, 2, 3)).eval()
    x = torch.randn(2, 3, 64, 64)
    outs, h = backbone(x), backbone.stem(x)
    for stage, out in zip(backbone.stages, outs):
        h = getattr(backbone, stage)(h)
        if arch is not SMALL_NEXT and stage == 'stage4':
            assert torch.equal(out, backbone.norm4(h)) and out.min() == 0
        else:
            assert torch.equal(out, h)


def test_norm_outputs_gives_every_output_its_own_norm():
    x = torch.randn(2, 3, 64, 64)
    backbone = small(out_indices=(0, 2), norm_outputs=True).eval()
    assert [name for name, _ in backbone.named_children() if name.startswith('norm')] == ['norm1', 'norm3']
    assert all(out.min() == 0 for out in backbone(x))
    nothing = small(arch=SMALL_NEXT, out_indices=(0, 2), norm_outputs=True)
    assert not any(name.startswith('norm') for name, _ in nothing.named_children())


OUT_INDICES = [indices for n in (1, 2, 3, 4) for indices in itertools.combinations(range(4), n)]


@pytest.mark.parametrize('out_indices', [*OUT_INDICES, -1, -2, (-4, 1)])
def test_every_parameter_gets_a_gradient(out_indices):
    backbone = small(out_indices=out_indices, norm_outputs=True)
    outs = backbone(torch.randn(2, 3, 64, 64))
    assert [out.shape[-1] for out in outs] == [16 >> i for i in backbone.out_indices]
    # Some function in which no BatchNorm is blind to a scale, as a plain sum would be.
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in backbone.parameters())


@pytest.mark.parametrize('arch', [SMALL_INCEPTION, SMALL_RESNET, *SMALL_RESNETS, NARROW_MASKS])
def test_new_rows_train(arch):
    """Every parameter gets a gradient, and a small step against it lowers the loss by what calculus says."""
    backbone = small(arch=arch).double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    weights = torch.randn_like(backbone(x)[0])
    loss = (backbone(x)[0] * weights).sum()
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in backbone.parameters())
    slope = sum(parameter.grad.square().sum() for parameter in backbone.parameters())
    step = 1e-7 * loss.abs() / slope
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter -= step * parameter.grad
        fall = loss - (backbone(x)[0] * weights).sum()
    assert fall.item() == pytest.approx((step * slope).item(), rel=1e-3)
    backbone.eval()
    together = backbone(x)[0]  # in evaluation an image does not depend on the others of its batch
    assert torch.allclose(together, torch.cat([backbone(image[None])[0] for image in x]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('frozen_stages', range(-1, 5))
@pytest.mark.parametrize('norm_eval', [True, False])
def test_frozen_stages_and_norm_eval(frozen_stages, norm_eval):
    backbone = small(frozen_stages=frozen_stages, norm_eval=norm_eval, out_indices=(0, 3), norm_outputs=True)
    assert backbone.train() is backbone
    for name, module in backbone.named_children():
        depth = int(name[-1]) if name != 'stem' else 0
        frozen = depth <= frozen_stages and name != 'norm1'  # a norm of an earlier output has no weights to start from
        assert all(parameter.requires_grad is not frozen for parameter in module.parameters())
        norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        assert norms and all(norm.training is not (frozen or norm_eval) for norm in norms)


@pytest.mark.parametrize('frozen_stages', [-1, 1, 4])
@pytest.mark.parametrize('arch', [SMALL, SMALL_RESNETS[0]])
def test_new_masks_are_trained_at_the_full_rate_whatever_is_frozen(arch, frozen_stages):
    backbone = small(arch=arch, frozen_stages=frozen_stages, norm_eval=True, new_masks=True).train()
    masks = {name for name, _ in backbone.named_parameters() if '.mask.' in name}
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert masks and (trained >= masks if frozen_stages < 4 else trained == masks)
    assert all(not name.startswith(('stem.', 'stage1.')) for name in trained - masks) or frozen_stages < 0
    norms = [name for name, m in backbone.named_modules() if isinstance(m, _BatchNorm) and m.training]
    assert norms and all('.mask.' in name for name in norms)
    deepest = backbone.get_layer_depth('head.fc.weight', 'backbone.')
    assert {backbone.get_layer_depth(name) for name in masks} == {deepest}
    assert backbone.get_layer_depth('stage1.unit1.conv1.weight')[0] == 1
    backbone(torch.randn(2, 3, 64, 64))[0].square().sum().backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize('arch', [SMALL, *SMALL_RESNETS])
def test_with_cp_gives_the_same_gradients_also_of_edited_maps(arch):
    x = torch.randn(2, 3, 64, 64)
    edits = {'stage1.attention1.map': lambda mask: 1 - mask}
    results = []
    for with_cp in (False, True):
        backbone = small(arch=arch, with_cp=with_cp)
        with edit_attention(backbone, edits), record_attention(backbone, every=True) as maps:
            loss = backbone(x)[0].square().mean()
        loss.backward()  # after the edit has ended
        assert all(len(recorded) == 1 for recorded in maps.values())
        results.append([loss, *(parameter.grad for parameter in backbone.parameters())])
    assert all(torch.equal(plain, recomputed) for plain, recomputed in zip(*results))


def test_norm_cfg_reaches_every_norm():
    backbone = small(norm_cfg=dict(type='SyncBN'), out_indices=(0, 3), norm_outputs=True)
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert norms and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    backbone = small(arch=SMALL_NEXT, norm_cfg=dict(type='GN', num_groups=4))
    assert not any(isinstance(m, _BatchNorm) for m in backbone.modules())


@pytest.mark.parametrize('arch', [SMALL, SMALL_INCEPTION])
def test_strides_and_dilations_keep_the_weights_of_the_classifier(arch):
    plain = small(arch=arch, out_indices=(3,))
    dense = small(arch=arch, out_indices=(3,), strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    dense.load_state_dict(plain.state_dict())
    assert dense.eval()(torch.randn(1, 3, 64, 64))[0].shape[2:] == (8, 8)  # output stride 8
    convs = {m.dilation for name, m in dense.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
             and name.startswith('stage3')}  # fmt: skip
    assert convs == {(1, 1), (2, 2)}  # the first unit reads the grid of stage 2


def test_local_conv_has_three_units_and_no_pooling():
    backbone = small(mask='local_conv')
    for module in backbone.modules():
        if isinstance(module, AttentionModule):
            assert sum(isinstance(m, PreActBottleneck) for m in module.mask.modules()) == 3
            assert isinstance(module.mask.pool, nn.Identity)


def test_local_conv_at_the_cost_of_the_encoder_decoder():
    """The mid widths nearest to equal FLOPs (paper, table 4) in each stage, and what is left of the difference."""
    widths = (7, 13, 17)

    def count(module, *shape):
        with FlopCounterMode(display=False) as counter, WithoutBatchNorm():
            module.eval()(torch.empty(1, *shape, device='meta'))
        return counter.get_total_flops() // 2

    def unit(channels, width):
        return 2 * channels * width + 9 * width**2

    with torch.device('meta'):
        nets = [
            ResidualAttentionNet('attention56-cifar'),
            ResidualAttentionNet(dict(base='attention56-cifar', mask_widths=widths), mask='local_conv'),
            ResidualAttentionNet('attention56-cifar', mask='local_conv'),
        ]
    stated = [
        (12_705_792, 12_495_872, 21_757_952),
        (12_288_000, 12_112_640, 21_757_952),
        (10_616_832, 10_559_168, 21_757_952),
    ]
    for i, (channels, side, poolings) in enumerate([(64, 32, 3), (128, 16, 2), (256, 8, 1)]):
        macs = tuple(count(getattr(net, f'stage{i + 1}').attention1.mask, channels, side, side) for net in nets)
        assert macs == stated[i]
        # Three units a level, but two at the lowest one.
        levels = sum((3 if level < poolings else 2) * (side >> level) ** 2 for level in range(1, poolings + 1))
        target = levels * unit(channels, channels // 4)
        assert macs[0] == target + 2 * channels**2 * side**2
        distance = {width: abs(3 * side**2 * unit(channels, width) - target) for width in range(1, channels // 4 + 1)}
        assert min(distance, key=distance.get) == widths[i]
        assert macs[1] == pytest.approx(macs[0], rel=0.017)
    macs = tuple(count(net, 3, 32, 32) for net in nets)
    assert macs == (122_822_656, 122_379_712, 152_485_888)  # and 2560 of the classifier
    assert macs[1] == pytest.approx(macs[0], rel=0.004)


def test_mask_widths_are_those_of_the_masks_alone():
    plain, narrow = small(), small(arch=NARROW_MASKS)
    for (name, a), (other, b) in zip(plain.named_parameters(), narrow.named_parameters()):
        assert name == other  # checkpoints know the same names
        if '.mask.' not in name or 'stage3' in name:
            assert a.shape == b.shape
    units = [m for m in narrow.stage2.attention1.mask.modules() if isinstance(m, PreActBottleneck)]
    assert [unit.conv2.weight.shape for unit in units] == [(5, 5, 3, 3)] * 5


def test_initialisation():
    backbone = small()
    backbone.init_weights()
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] ** 2 * module.out_channels / module.groups
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.25)
        elif isinstance(module, _BatchNorm):
            assert module.weight.eq(1).all() and not module.bias.any()


def test_layer_depth_grows_along_the_trunk_and_honours_the_prefix():
    backbone = small(arch=dict(SMALL, modules=(1, 2, 3, 0)), out_indices=(0, 3), norm_outputs=True)
    names = [name for name, _ in backbone.named_parameters()]
    depths = [backbone.get_layer_depth(f'backbone.{name}', 'backbone.') for name in names]
    assert depths == [backbone.get_layer_depth(name) for name in names]
    number = 1 + (2 + 3 + 4 + 3) + 1  # stem, blocks of the trunk, whatever follows
    assert {depth for depth, _ in depths} == set(range(number)) and {n for _, n in depths} == {number}
    by_block = dict(zip(names, depths))
    assert by_block['stem.0.weight'][0] == 0
    assert by_block['stage1.unit1.conv1.weight'][0] == 1
    assert by_block['stage2.attention2.trunk.0.conv1.weight'][0] == 5
    assert by_block['norm4.0.weight'][0] == number - 1
    assert backbone.get_layer_depth('head.fc.weight', 'backbone.') == (number - 1, number)


def test_layer_depth_without_attention():
    with torch.device('meta'):
        backbone = ResidualAttentionNet('resnet164-cifar', out_indices=(0, 1, 2))
    assert backbone.min_size == 1
    depths = [backbone.get_layer_depth(name) for name, _ in backbone.named_parameters()]
    assert {depth for depth, _ in depths} == set(range(1 + 3 * 18 + 1)) and {n for _, n in depths} == {56}


@pytest.mark.parametrize('arch', [SMALL, SMALL_INCEPTION, SMALL_RESNET])
def test_float64_agrees_with_float32(arch):
    backbone = small(arch=arch).eval()
    x = torch.randn(2, 3, 64, 64)
    single = backbone(x)[0]
    double = backbone.double()(x.double())[0]
    assert torch.allclose(single.double(), double, rtol=1e-3, atol=1e-4 * double.abs().max().item())


def test_layer_wise_decay_of_mmpretrain():
    from mmengine.optim import build_optim_wrapper

    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='ResidualAttentionNet', arch=SMALL),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=32),
        )
    )
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=1.0, weight_decay=0.1),
            constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.5),
        ),
    )
    rates = {id(p): group['lr'] for group in wrapper.param_groups for p in group['params']}
    by_name = {name: rates[id(p)] for name, p in model.named_parameters()}
    number = 1 + (2 + 2 + 2 + 3) + 1
    assert by_name['head.fc.weight'] == by_name['backbone.norm4.0.weight'] == 1
    assert by_name['backbone.stage4.unit3.conv1.weight'] == 0.5
    assert by_name['backbone.stem.0.weight'] == 0.5 ** (number - 1)
