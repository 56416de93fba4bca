"""Detectors and segmenters on a network that begins as ResNet-50, beside the stock configs on ResNet-50 itself."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import initialize
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmresattn import compat
from mmresattn.weights.pretrained_trunk import stage_factors
from tests.conftest import ROOT

CHANNELS = [32, 64, 128, 256]
ARCH = dict(base='attention-resnet50', stem_channels=8, channels=CHANNELS)
MMDET = 'mmdet::{0}/{1}_r50_fpn_1x_coco.py'
DETECTORS = [('faster-rcnn', 'faster_rcnn'), ('mask-rcnn', 'mask_rcnn'), ('retinanet', 'retinanet')]
SEGMENTERS = [
    ('upernet_attention-resnet50', 'mmseg::_base_/models/upernet_r50.py'),
    ('deeplabv3plus_attention-resnet50-d8', 'mmseg::_base_/models/deeplabv3plus_r50-d8.py'),
]


def narrow(head):
    """Heads as narrow as the backbone."""
    if isinstance(head.get('in_channels'), list):
        head.in_channels = CHANNELS
    elif head.get('in_channels') in (1024, 2048):
        head.in_channels = head.in_channels // 8
    if head.get('c1_in_channels'):
        head.c1_in_channels = 32
    head.update(channels=16)


def stock(cfg, scope, path):
    """The backbone of the stock config, a ResNet-50 of an eighth of its width, and a file of its random weights."""
    torch.manual_seed(0)
    cfg = dict(cfg, type='ResNet', base_channels=8, stem_channels=8, norm_cfg=dict(type='BN'), init_cfg=None,
               out_indices=(0, 1, 2, 3))  # fmt: skip
    with DefaultScope.overwrite_default_scope(scope):
        net = MODELS.build(cfg).double()
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    torch.save(net.state_dict(), path)
    net.eval()  # which returns None there
    return net


def build(cfg, scope, path):
    cfg.backbone.update(arch=ARCH)
    if 'norm_cfg' in cfg.backbone:
        cfg.backbone.norm_cfg = dict(type='BN')
    cfg.backbone.init_cfg.checkpoint = str(path)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(cfg)
    initialize(model.backbone.double(), model.backbone.init_cfg)  # as init_weights, which also logs every weight
    return model


def check_features(net, reference):
    """Equal at the start, but for the factor of each stage."""
    net.eval()
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    factors = stage_factors(net)
    with torch.no_grad():
        expected = reference(x)
        for i, found in zip(net.out_indices, net(x), strict=True):
            torch.testing.assert_close(found / factors[i], expected[i], rtol=1e-10, atol=1e-10)
    net.float().train()


def check_step(model, losses):
    """One step moves every mask and nothing that is frozen."""
    losses = [value for values in losses.values() for value in (values if isinstance(values, list) else [values])]
    total = sum(value.sum() for value in losses if value.requires_grad)
    assert total.isfinite()
    before = {name: parameter.clone() for name, parameter in model.backbone.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-3)
    total.backward()
    optimizer.step()
    for name, parameter in model.backbone.named_parameters():
        moved = not torch.equal(parameter, before[name])
        if not parameter.requires_grad:
            assert not moved, name
        elif name.endswith('mask.linear.2.weight'):
            assert moved, name


@pytest.mark.parametrize(('name', 'folder'), DETECTORS)
def test_detector_begins_with_the_features_of_the_stock_config(name, folder, tmp_path):
    pytest.importorskip('mmdet')
    compat.enable()
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    cfg = Config.fromfile(ROOT / f'configs/detection/{name}_attention-resnet50_fpn_1x_coco.py').model
    theirs = Config.fromstring(f"_base_ = '{MMDET.format(folder, name)}'", '.py').model
    assert {k: v for k, v in cfg.items() if k != 'backbone'} == {k: v for k, v in theirs.items() if k != 'backbone'}
    reference = stock(theirs.backbone, 'mmdet', tmp_path / 'resnet.pth')
    cfg.neck.in_channels = CHANNELS
    if 'roi_head' in cfg:
        cfg.roi_head.bbox_head.fc_out_channels = 16
    model = build(cfg, 'mmdet', tmp_path / 'resnet.pth')
    check_features(model.backbone, reference)

    boxes = torch.tensor([[8.0, 8.0, 40.0, 50.0]])
    masks = BitmapMasks([torch.ones(64, 96).numpy()], 64, 96)
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), (64, 96))
    sample = DetDataSample(metainfo=dict(shapes, scale_factor=(1, 1)))
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1]), masks=masks)
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    check_step(model, model.train()(torch.randn(2, 3, 64, 96), [sample, sample], mode='loss'))


@pytest.mark.parametrize(('name', 'theirs'), SEGMENTERS)
def test_segmenter_begins_with_the_features_of_the_stock_config(name, theirs, tmp_path):
    pytest.importorskip('mmseg')
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    cfg = Config.fromfile(ROOT / f'configs/segmentation/{name}_4xb4-160k_ade20k-512x512.py').model
    # The stock config has the deep stem of ResNet-50-C; strides, dilations and the rest are those of ResNet-50 here.
    reference = Config.fromstring(f"_base_ = '{theirs}'", '.py').model.backbone
    reference = stock(reference, 'mmseg', tmp_path / 'resnet.pth')
    for head in (cfg.decode_head, cfg.auxiliary_head):
        narrow(head)
        head.norm_cfg = dict(type='BN')
    model = build(cfg, 'mmseg', tmp_path / 'resnet.pth')
    check_features(model.backbone, reference)

    samples = [SegDataSample(metainfo=dict(img_shape=(64, 96)), gt_sem_seg=PixelData(data=torch.ones(1, 64, 96).long()))
               for _ in range(2)]  # fmt: skip
    check_step(model, model.train()(torch.randn(2, 3, 64, 96), samples, mode='loss'))
