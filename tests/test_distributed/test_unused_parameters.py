"""DDP with ``find_unused_parameters=False`` stops at the second step if a parameter that is trained got no gradient."""

import itertools
import json
from dataclasses import asdict
from functools import cache

import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample
from torch import nn
from torch.multiprocessing import ProcessRaisedException

from mmresattn.compat.cpu_launch import prepare_cpu_launch
from mmresattn.models import ResidualAttentionNet, backbones
from mmresattn.models.backbones.residual_attention_net import resolve_arch
from tests.conftest import ROOT, WithoutBatchNorm

OURS = set(backbones.__all__)
FAMILIES = sorted(
    {path.relative_to(ROOT / 'configs').parts[0] for path in ROOT.glob('configs/[!_]*/**/*.py')}
    - {'captioning', 'detection_branch', 'regression'}  # on backbones of other packages
)
NEEDED = dict(detection='mmdet', segmentation='mmseg')  # whose configs inherit from that package's
WIDTHS = {'init_cfg', 'widen_factor', 'growth_rate', 'base_width', 'width_per_group'}  # change no graph
NARROW = dict(base='attention56', stem_channels=4, channels=(8, 8, 8, 8), poolings=(1, 1, 1, 0))


def backbone_dicts(node):
    """Every config of a backbone of ours, however deep it lies; those in a neck or head are cut or copied there."""
    if isinstance(node, dict):
        if str(node.get('type')).split('.')[-1] in OURS:
            cfg = {key: value for key, value in node.items() if key not in WIDTHS}
            if cfg['type'].endswith('ResidualAttentionNet'):  # one of several modules and units that are the same
                arch = asdict(resolve_arch(cfg.get('arch', 'attention56')))
                cfg['arch'] = {**arch, **{key: [min(n, 1) for n in arch[key]] for key in ('modules', 'units_after')}}
            yield cfg
        else:
            yield from itertools.chain.from_iterable(map(backbone_dicts, node.values()))
    elif isinstance(node, list | tuple):
        yield from itertools.chain.from_iterable(map(backbone_dicts, node))


def unused_parameters(net):
    """Names of trained parameters that the graph of the outputs does not reach; the meta device computes nothing."""
    with WithoutBatchNorm():
        outs = net.train()(torch.empty(2, 3, 64, 64, device='meta'))
    nodes, reached = [out.grad_fn for out in outs if out.requires_grad], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in reached:
            reached.add(node)
            nodes += [following for following, _ in node.next_functions]
    used = {node.variable for node in reached if hasattr(node, 'variable')}
    return [name for name, p in net.named_parameters() if p.requires_grad and p not in used]


@cache
def unused_of_config(cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        net = MODELS.build(json.loads(cfg))
    return unused_parameters(net)


@pytest.mark.parametrize('family', FAMILIES)
def test_every_backbone_in_the_configs_trains_all_its_parameters(family):
    if family in NEEDED:
        pytest.importorskip(NEEDED[family], reason=f'the configs inherit from {NEEDED[family]}')
    found = {}
    for path in ROOT.glob(f'configs/{family}/**/*.py'):
        for cfg in backbone_dicts(Config.fromfile(path).model.to_dict()):
            found.setdefault(json.dumps(cfg, sort_keys=True), path.stem)
    assert found
    unused = {name: unused_of_config(cfg) for cfg, name in found.items()}
    assert not any(unused.values()), unused


@pytest.mark.parametrize('out_indices', [(1,), (3,), (0, 2), (0, 1, 2, 3)], ids=str)
def test_outputs_and_frozen_stages_in_any_combination(out_indices):
    for frozen_stages in (-1, 1, 3, 4):
        with torch.device('meta'):
            net = ResidualAttentionNet(
                NARROW, out_indices=out_indices, norm_outputs=True, frozen_stages=frozen_stages, with_cp=True
            )
        assert unused_parameters(net) == [], frozen_stages


def test_outputs_that_a_neck_leaves_out_need_no_norm():
    """As FPN with start_level=1 leaves out the first."""
    with torch.device('meta'):
        net = ResidualAttentionNet(NARROW, out_indices=(0, 1, 2, 3), norm_outputs=(1, 2, 3))
        sum(output.sum() for output in net(torch.empty(2, 3, 64, 64))[1:]).backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


def test_a_part_that_no_output_needs_is_found():
    with torch.device('meta'):
        net = ResidualAttentionNet(NARROW)
        net.stage1.attention1.trunk[0].spare = nn.Conv2d(8, 8, 1)
    assert unused_parameters(net) == [f'stage1.attention1.trunk.0.spare.{name}' for name in ('weight', 'bias')]


# A small network of every family, with all that comes after its backbone.
ARCH = dict(base='attention56-cifar', stem_channels=4, channels=(8, 8, 8), poolings=(1, 1, 1))
NET = dict(type='ResidualAttentionNet', arch=ARCH)
POOL, HEAD = dict(type='GlobalAveragePooling'), dict(type='LinearClsHead', num_classes=3, in_channels=8)
SE = dict(
    type='AttentionResNet',
    depth=18,
    stem_channels=4,
    base_channels=1,
    attention=dict(type='SqueezeExcitation', ratio=2),
)
CLASSIFIERS = {
    'frozen stage, checkpointed': dict(backbone=dict(NET, frozen_stages=1, with_cp=True), neck=POOL, head=HEAD),
    'SE-ResNet': dict(backbone=SE, neck=POOL, head=HEAD),
    'attention branch': dict(
        type='AttentionBranchNetwork',
        backbone=dict(type='CIFARResNet', depth=8),
        head=dict(type='AttentionBranchHead', num_classes=3),
    ),
    'pay attention': dict(
        backbone=dict(NET, out_indices=(0, 1, 2), norm_outputs=True),
        neck=dict(type='PayAttention', in_channels=(8, 8, 8)),
        head=dict(type='PayAttentionHead', num_classes=3, in_channels=(8, 8)),
    ),
    'SyncBN': dict(backbone=dict(NET, norm_cfg=dict(type='SyncBN')), neck=POOL, head=HEAD),
    # Its head takes the last output alone.
    'to fail': dict(backbone=dict(NET, out_indices=(1, 2), norm_outputs=True), neck=POOL, head=HEAD),
}


def two_steps(rank, name):
    torch.manual_seed(0)
    cfg = Config(dict(launcher='pytorch', model={'type': 'ImageClassifier', **CLASSIFIERS[name]}))
    prepare_cpu_launch(cfg)  # without a GPU, BatchNorm in the place of SyncBN
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model).train()
    model = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    samples = [DataSample().set_gt_label(label) for label in range(3)]
    for step in range(2):
        torch.manual_seed(10 * step + rank)
        losses = model(torch.randn(3, 3, 16, 16), samples, mode='loss')
        optimizer.zero_grad()
        sum(value for key, value in losses.items() if 'loss' in key).backward()
        optimizer.step()
    return list(model.parameters())


def all_two_steps(rank):
    return {name: two_steps(rank, name) for name in list(CLASSIFIERS)[:-1]}


def test_ddp_takes_two_steps(in_processes):
    """On images of their own, after which the processes have the same weights."""
    a, b = in_processes(all_two_steps)
    assert len(a) == len(CLASSIFIERS) - 1
    for name in a:
        assert all(torch.equal(*pair) and pair[0].isfinite().all() for pair in zip(a[name], b[name])), name


def test_ddp_stops_where_a_parameter_is_not_used(in_processes):
    with pytest.raises(ProcessRaisedException, match='find_unused_parameters=True'):
        in_processes(two_steps, 'to fail')
