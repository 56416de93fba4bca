from math import prod

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from torch import nn

from mmresattn.models import AttentionResNet, CIFARDenseNet, CIFARWideResNet, ResidualAttentionNet, SEBNInception

TINY = dict(
    type='ResidualAttentionNet',
    arch=dict(base='attention56', stem_channels=8, channels=(16, 16, 16, 16), modules=(1, 2, 1, 0)),
)
LR, RATE = 0.5, 0.8
# Of TINY, by hand: the order in which an image passes the parts of the trunk.
TRUNK = [
    'stem', 'stage1.unit1', 'stage1.attention1', 'stage2.unit1', 'stage2.attention1', 'stage2.attention2',
    'stage3.unit1', 'stage3.attention1', 'stage4.unit1', 'stage4.unit2', 'stage4.unit3',
]  # fmt: skip


def wrapper(model, scope='mmresattn', optimizer=None, constructor='BackboneLayerDecayConstructor', **paramwise):
    optimizer = dict(type='SGD', lr=LR, weight_decay=0.1) if optimizer is None else optimizer
    with DefaultScope.overwrite_default_scope(scope):
        return build_optim_wrapper(
            model,
            dict(optimizer=optimizer, constructor=constructor, paramwise_cfg={'layer_decay_rate': RATE, **paramwise}),
        )


def rates(model, *args, **kwargs):
    """Rate of every parameter that the optimizer has."""
    optimizer = wrapper(model, *args, **kwargs).optimizer
    by_parameter = {p: group['lr'] for group in optimizer.param_groups for p in group['params']}
    return {name: by_parameter[p] for name, p in model.named_parameters() if p in by_parameter}


def expected(name):
    """Counted from the end: the last part of the trunk is one step below the full rate, the stem eleven."""
    for steps, part in enumerate(reversed(TRUNK), 1):
        if name.startswith(f'backbone.{part}.'):
            return LR * prod([RATE] * steps)
    return LR


class StandIn(nn.Module):
    """What detectors and segmenters have in common."""

    def __init__(self, backbone):
        super().__init__()
        self.neck = nn.Conv2d(16, 8, 1)
        self.backbone = backbone
        self.head = nn.ModuleList([nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)])


def build(cfg, scope='mmpretrain'):
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg)


@pytest.fixture
def model():
    return StandIn(build({**TINY, 'out_indices': (0, 1, 2, 3), 'norm_outputs': True}))


def test_every_parameter_has_the_rate_of_its_place(model):
    found = rates(model)
    assert found == pytest.approx({name: expected(name) for name, _ in model.named_parameters()})
    assert found['backbone.stem.0.weight'] == pytest.approx(LR * RATE**11)
    assert found['backbone.stage4.unit3.conv1.weight'] == pytest.approx(LR * RATE)
    assert found['backbone.norm1.0.weight'] == found['neck.weight'] == found['head.1.bias'] == LR


def test_what_is_frozen_is_left_out():
    model = StandIn(build({**TINY, 'frozen_stages': 1}))
    found = rates(model)
    assert found == pytest.approx({n: expected(n) for n, p in model.named_parameters() if p.requires_grad})
    assert not any(name.startswith(('backbone.stem', 'backbone.stage1')) for name in found)


def test_other_fields_of_paramwise_cfg_work_as_in_mmengine(model):
    """Beside the decay of rates: multiples of the rate, and what is decayed of the weights."""
    given = dict(custom_keys={'head': dict(lr_mult=10.0), 'stage4': dict(decay_mult=0.5)}, norm_decay_mult=0.0)
    groups = wrapper(model, **given).optimizer.param_groups
    plain = wrapper(model, constructor='DefaultOptimWrapperConstructor', **given).optimizer.param_groups
    assert len(groups) == len(plain) == len(list(model.parameters()))
    for group, other in zip(groups, plain):
        assert group['params'][0] is other['params'][0] and group['weight_decay'] == other['weight_decay']
        assert group['lr'] == pytest.approx(
            expected(group['param_name']) * (10 if 'head' in group['param_name'] else 1)
        )
    assert {group['weight_decay'] for group in groups} == {0.1, 0.05, 0.0}
    assert len(rates(model, optimizer=dict(type='SGD', lr=LR))) == len(groups)  # no weight decay at all


@pytest.mark.parametrize('own', [True, False])
def test_classifiers_of_mmpretrain(own):
    """Its own constructor with the same backbone, and ours, give the same groups."""
    model = build(
        dict(type='ImageClassifier', backbone=TINY, neck=dict(type='GlobalAveragePooling'),
             head=dict(type='LinearClsHead', num_classes=3, in_channels=16))
    )  # fmt: skip
    constructor = 'LearningRateDecayOptimWrapperConstructor' if own else 'BackboneLayerDecayConstructor'
    groups = wrapper(model, 'mmpretrain', constructor=constructor, norm_decay_mult=0.0).optimizer.param_groups
    assert {g['param_name']: g['lr'] for g in groups} == pytest.approx(
        {name: expected(name) for name, _ in model.named_parameters()}
    )
    names = [name for part in TRUNK for name, _ in model.named_parameters() if name.startswith(f'backbone.{part}.')]
    depth = {g['param_name']: g['layer_id'] for g in groups}
    assert sorted({depth[name] for name in names}) == list(range(len(TRUNK)))
    assert all(g['lr_scale'] == pytest.approx(g['lr'] / LR) for g in groups)


def test_detectors():
    pytest.importorskip('mmdet', reason='MMDetection is not installed')
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    model = build(
        dict(
            type='FCOS',
            backbone={**TINY, 'out_indices': (1, 2, 3), 'norm_outputs': True, 'frozen_stages': 1},
            neck=dict(type='FPN', in_channels=[16, 16, 16], out_channels=8, num_outs=3),
            bbox_head=dict(type='FCOSHead', num_classes=2, in_channels=8, feat_channels=8, stacked_convs=1,
                           strides=[8, 16, 32], norm_cfg=None),
        ),
        'mmdet',
    )  # fmt: skip
    found = rates(model, 'mmdet')
    assert found == pytest.approx({n: expected(n) for n, p in model.named_parameters() if p.requires_grad})
    assert {name.split('.')[0] for name in found} == {'backbone', 'neck', 'bbox_head'}


def test_segmenters():
    pytest.importorskip('mmseg', reason='MMSegmentation is not installed')
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    head = dict(type='FCNHead', in_channels=16, channels=8, num_convs=1, num_classes=2)
    model = build(
        dict(
            type='EncoderDecoder',
            backbone={**TINY, 'out_indices': (2, 3), 'norm_outputs': True},
            decode_head={**head, 'in_index': 1},
            auxiliary_head={**head, 'in_index': 0},
            test_cfg=dict(mode='whole'),
        ),
        'mmseg',
    )
    found = rates(model, 'mmseg')
    assert found == pytest.approx({name: expected(name) for name, _ in model.named_parameters()})
    assert {name.split('.')[0] for name in found} == {'backbone', 'decode_head', 'auxiliary_head'}


@pytest.mark.parametrize(
    ('make', 'first', 'last', 'steps'),
    [
        (lambda: AttentionResNet(18, attention=dict(type='SqueezeExcitation')), 'conv1.', 'layer4.1.', 8),
        (lambda: SEBNInception(), 'stem.', 'stage3.5b', 10),
        (lambda: CIFARWideResNet(16, widen_factor=1), 'stem.', 'stage3.1.', 6),
        (lambda: CIFARDenseNet(10, growth_rate=2), 'stem.', 'stage3.block.', 5),
        (lambda: ResidualAttentionNet('attention452-cifar', out_indices=(0, 1, 2)), 'stem.', 'stage3.unit2.', 24),
    ],
)  # fmt: skip
def test_other_backbones(make, first, last, steps):
    """The last block is one step below the full rate; the stem as many more as there are blocks."""
    with torch.device('meta'):
        model = StandIn(make())
    found = {name.removeprefix('backbone.'): lr for name, lr in rates(model).items()}
    begin, end = ([lr for name, lr in found.items() if name.startswith(part)] for part in (first, last))
    assert begin and end and end == pytest.approx([LR * RATE] * len(end))
    assert begin == pytest.approx([LR * RATE ** (steps + 1)] * len(begin))
    assert found['neck.weight'] == LR


def test_what_cannot_be_decayed_is_said(model):
    with pytest.raises(ValueError, match=r'that of StandIn is Conv2d, which has none'):
        wrapper(StandIn(nn.Conv2d(3, 4, 1)))
    with pytest.raises(ValueError, match='is NoneType'):
        wrapper(nn.Linear(2, 2))
    for rate in (None, 0, -0.5, 1.5):
        with pytest.raises(ValueError, match=rf'above 0 and at most 1, not {rate}'):
            wrapper(model, layer_decay_rate=rate)
    with pytest.raises(ValueError, match='give the optimizer an lr'):
        wrapper(model, optimizer=dict(type='SGD'))


def test_one_name_for_all_scopes():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert (
            OPTIM_WRAPPER_CONSTRUCTORS.get('BackboneLayerDecayConstructor').__module__ == 'mmresattn.engine.layer_decay'
        )
