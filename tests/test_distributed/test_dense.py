"""Stock detectors and segmenters train in two processes with DDP's strict check that every parameter got a gradient."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData

from mmresattn.compat import cpu_launch
from tests.conftest import ROOT

SMALL = dict(base='attention56', stem_channels=8, channels=(8, 8, 16, 16), modules=(1, 1, 1, 0), poolings=(1, 1, 1, 0))
# MMDetection's own ATSS, whose FPN leaves out the first output, on the backbone of docs/tools.md.
ATSS = """
_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True, type='ResidualAttentionNet', out_indices=(0, 1, 2, 3), norm_outputs=(1, 2, 3), frozen_stages=1
    ),
    neck=dict(in_channels=[8, 8, 16, 16], out_channels=16),
    bbox_head=dict(
        in_channels=16, feat_channels=16, stacked_convs=1, num_classes=3, norm_cfg=dict(type='GN', num_groups=4)
    ),
)
"""
FCN = f"""
_base_ = '{ROOT}/configs/segmentation/fcn_attention56-d8_4xb4-160k_ade20k-512x512.py'
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    decode_head=dict(in_channels=16, channels=8, num_classes=3),
    auxiliary_head=dict(in_channels=16, channels=8, num_classes=3),
)
"""


def detection_sample():
    from mmdet.structures import DetDataSample

    sample = DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64), scale_factor=1))
    boxes = torch.tensor([[4.0, 4, 40, 40], [20, 10, 60, 50]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 2]))
    return sample


def segmentation_sample():
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_shape=(64, 64)))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, 64, 64)))
    return sample


def two_steps(rank, cfg, sample):
    """The warnings, the losses of both steps, and the weights after them."""
    torch.manual_seed(0)
    warnings = []
    cpu_launch.print_log = lambda message, **kwargs: warnings.append(message)
    cpu_launch.prepare_cpu_launch(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).train()
        wrapper = {key: value for key, value in cfg.model_wrapper_cfg.items() if key != 'type'}
        model = MMDistributedDataParallel(model, **wrapper)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
        losses = []
        for step in range(2):
            torch.manual_seed(10 * step + rank)
            images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
            data = dict(inputs=list(images), data_samples=[sample(), sample()])
            loss, _ = model.module.parse_losses(model(**model.module.data_preprocessor(data, True), mode='loss'))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return warnings, losses, [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize(
    ('text', 'package', 'sample'), [(ATSS, 'mmdet', detection_sample), (FCN, 'mmseg', segmentation_sample)],
    ids=['ATSS', 'FCN with SyncBN'],
)  # fmt: skip
def test_two_steps_of_a_stock_model(in_processes, tmp_path, text, package, sample):
    pytest.importorskip(f'{package}.models')
    (tmp_path / 'config.py').write_text(text)
    cfg = Config.fromfile(tmp_path / 'config.py')
    cfg.launcher = 'pytorch'
    cfg.model.backbone.update(arch=SMALL, init_cfg=None)
    (warnings, a, weights), (_, b, others) = in_processes(two_steps, cfg, sample)
    assert a != b and torch.tensor([*a, *b]).isfinite().all()  # each on images of its own
    assert weights and all(torch.equal(*pair) for pair in zip(weights, others))
    assert ('SyncBN needs GPUs: it was replaced by BN' in ''.join(warnings)) == (package == 'mmseg')
