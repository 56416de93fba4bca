import json
import re
from functools import cache

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader
from PIL import Image

import mmresattn  # noqa: F401  before MMDetection
from mmresattn.models import ResidualAttentionNet
from mmresattn.models.layers import record_attention
from mmresattn.visualization.original_image import maps_on_images
from tests.conftest import ROOT, WithoutBatchNorm
from tools import test as test_tool
from tools import train as train_tool

mmdet_apis = pytest.importorskip('mmdet.apis', reason='needs MMDetection')

CONFIGS = sorted(path.relative_to(ROOT) for path in ROOT.glob('configs/detection/*.py'))


def build(cfg, device='cpu'):
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device(device):
        return MODELS.build(cfg.model)


@cache
def shapes(path):
    """The weights of a classifier's backbone, without values."""
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        return MODELS.build(Config.fromfile(path).model.backbone).state_dict()


def test_every_net_has_every_detector():
    expected = {
        f'{detector}_{net}_fpn_1x_coco'
        for detector in ('faster-rcnn', 'retinanet', 'mask-rcnn')
        for net in ('attention56', 'attentionnext56', 'attention-resnet50')
    }
    assert {path.stem for path in CONFIGS} >= expected


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_and_its_parts_agree(path):
    docstring = re.match(r'"""(.+?)"""', (ROOT / path).read_text(), re.S)[1]
    assert re.search(rf'(tools/train.py|tools/dist_train.sh) {path}\b', docstring)
    cfg = Config.fromfile(ROOT / path)
    assert cfg.custom_imports.imports[1:] == ['mmresattn.compat.enabled', 'mmresattn.compat.operators_enabled']
    assert cfg.default_scope == 'mmdet'
    detector = build(cfg, 'meta').train()
    net = detector.backbone
    with WithoutBatchNorm():
        features = net(torch.empty(1, 3, 256, 192, device='meta'))
        levels = detector.neck(features)
    assert [feature.shape[1] for feature in features] == detector.neck.in_channels
    # What is trained has gradients: DDP stops at parameters that have none.
    sum(level.sum() for level in levels).backward()
    unused = [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert not [name for name in unused if name.startswith(('backbone.', 'neck.'))]
    # Heads take these levels, at their strides and with their channels.
    head = detector.bbox_head if hasattr(detector, 'bbox_head') else detector.rpn_head
    assert [(256 // level.shape[2], 192 // level.shape[3]) for level in levels[:3]] == head.prior_generator.strides[:3]
    assert len(levels) == head.prior_generator.num_levels and {level.shape[1] for level in levels} == {head.in_channels}
    if hasattr(detector, 'roi_head'):
        extractor = detector.roi_head.bbox_roi_extractor
        assert extractor.featmap_strides == [
            height for height, _ in head.prior_generator.strides[: extractor.num_inputs]
        ]
        assert extractor.out_channels == detector.roi_head.bbox_head.in_channels == levels[0].shape[1]
    # The weights of the classifier: asked for in the same data format, and what they mean is kept.
    pretrained = 'resnet50' in path.stem  # by published weights: the trunk is trained as the stock config trains it
    assert (
        net.init_cfg['type'] == ('PretrainedTrunk' if pretrained else 'ClassifierWeights')
        and cfg.model.data_preprocessor.bgr_to_rgb
    )
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    frozen = {name for name, _ in net.named_parameters() if name.startswith(('stem.', 'stage1.'))}
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if pretrained:
        assert net.init_cfg['checkpoint'] == 'torchvision://resnet50'
        assert {name for name in trained & frozen if '.mask.' not in name} == set()
        masks = {name for name, _ in net.named_parameters() if '.mask.' in name}
        assert trained > masks and {name for name, m in net.named_modules() if m in norms and m.training} == {
            name for name, m in net.named_modules() if m in norms and '.mask.' in name
        }
        return
    if 'coco' in path.stem:
        classifier = Config.fromfile(ROOT / f'configs/resattn/{path.stem.split("_")[1]}_imagenet.py')
        assert net.init_cfg['checkpoint'] is None
        assert not trained & frozen and trained and not any(norm.training for norm in norms)
        assert (
            head.num_classes == 80 if hasattr(detector, 'bbox_head') else detector.roi_head.bbox_head.num_classes == 80
        )
    else:
        classifier = Config.fromfile(ROOT / 'configs/resattn/attention56_cifar10_fast.py')
        assert CheckpointLoader.load_checkpoint(net.init_cfg['checkpoint'])
        assert trained >= frozen and all(norm.training for norm in norms)
        assert detector.roi_head.bbox_head.num_classes == len(cfg.train_dataloader.dataset.metainfo.classes)
    for key in ('mean', 'std'):
        assert np.allclose(cfg.model.data_preprocessor[key], classifier.data_preprocessor[key], atol=0.01)
    state = shapes(classifier.filename)
    own = net.state_dict()
    assert {name.split('.')[0] for name in own if name not in state} <= set(net.init_cfg['new'])
    assert all(own[name].shape == value.shape for name, value in state.items() if name in own)


# A net, a head and images so small that a detector trains in seconds.
ARCH = dict(
    base='attention56', stem_channels=8, channels=(8, 16), strides=(1, 2), modules=(1, 1), poolings=(1, 1),
    units_after=(0, 1), t=1,
)  # fmt: skip
DERIVED = """
_base_ = '{root}/configs/detection/mask-rcnn_attention56_fpn_1x_coco.py'
model = dict(
    backbone=dict(arch={arch}, out_indices=(0, 1), init_cfg=dict(new=['norm1'])),
    neck=dict(in_channels=[8, 16], out_channels=8, num_outs=2),
    rpn_head=dict(in_channels=8, feat_channels=8, anchor_generator=dict(scales=[4], strides=[4, 8])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8, featmap_strides=[4, 8]),
        bbox_head=dict(in_channels=8, fc_out_channels=16, num_classes=1),
        mask_roi_extractor=dict(out_channels=8, featmap_strides=[4, 8]),
        mask_head=dict(in_channels=8, conv_out_channels=8, num_convs=1, num_classes=1),
    ),
    test_cfg=dict(rpn=dict(max_per_img=10), rcnn=dict(score_thr=0.0, max_per_img=3)),
)
resize = dict(type='Resize', scale=(64, 48), keep_ratio=True)
train_pipeline = [
    dict(type='ReplaySeed'),
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    resize,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), resize, dict(
    type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
)]
data = dict(
    data_root='{data}/', ann_file='boxes.json', data_prefix=dict(img=''), metainfo=dict(classes=('square',)),
)
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(**data, pipeline=train_pipeline))
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(**data, pipeline=test_pipeline))
test_evaluator = dict(ann_file='{data}/boxes.json', metric=['bbox', 'segm'])
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(clip_grad=dict(max_norm=1))
default_hooks = dict(logger=dict(interval=1))
"""  # fmt: skip


@pytest.fixture(scope='module')
def squares(tmp_path_factory):
    """Three images of two sizes with a bright square each, and the config of a small detector for them."""
    folder = tmp_path_factory.mktemp('squares')
    images, annotations = [], []
    for i, (width, x, y) in enumerate([(80, 10, 10), (70, 40, 20), (80, 20, 30)]):
        image = np.zeros((60, width, 3), np.uint8)
        image[y : y + 20, x : x + 20] = 255
        Image.fromarray(image).save(folder / f'{i}.png')
        images.append(dict(id=i, file_name=f'{i}.png', width=width, height=60))
        corners = [x, y, x + 20, y, x + 20, y + 20, x, y + 20]
        annotations.append(
            dict(id=i, image_id=i, category_id=0, bbox=[x, y, 20, 20], area=400, iscrowd=0, segmentation=[corners])
        )
    boxes = dict(images=images, annotations=annotations, categories=[dict(id=0, name='square')])
    (folder / 'boxes.json').write_text(json.dumps(boxes))
    config = folder / 'squares.py'
    config.write_text(DERIVED.format(root=ROOT, data=folder, arch={**ARCH, '_delete_': True}))
    return config


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """Checkpoint of a classifier with random weights and statistics."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(
            type='ImageClassifier',
            backbone=dict(type='ResidualAttentionNet', arch=ARCH),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=16),
        ))  # fmt: skip
    state = model.state_dict()
    for value in state.values():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand(value.shape))
    path = tmp_path_factory.mktemp('classifier') / 'classifier.pth'
    torch.save(dict(state_dict=state), path)
    return path


@pytest.fixture(scope='module')
def trained(squares, classifier, tmp_path_factory):
    """A detector that was trained by the command line from a classifier, and its work dir."""
    work_dir = tmp_path_factory.mktemp('work')
    options = [f'model.backbone.init_cfg.checkpoint={classifier}']
    train_tool.main([str(squares), '--work-dir', str(work_dir), '--no-validate', '--cfg-options', *options])
    return work_dir


def test_training_starts_from_the_classifier_and_freezes_it(trained, classifier):
    state = torch.load(trained / 'epoch_1.pth', weights_only=True)['state_dict']
    start = torch.load(classifier, weights_only=True)['state_dict']
    names = [name for name in start if name.startswith('backbone.')]
    frozen = [name for name in names if name.startswith(('backbone.stem', 'backbone.stage1'))]
    statistics = [name for name in names if 'running' in name]
    assert len(frozen) > 100 and all(torch.equal(state[name], start[name]) for name in (*frozen, *statistics))
    # The rest moved by two small steps.
    moved = [name for name in names if not torch.equal(state[name], start[name])]
    assert moved and all(torch.allclose(state[name], start[name], atol=1e-3) for name in moved)


def test_training_without_weights_stops_before_anything_is_read(squares, trained, tmp_path):
    # The data do not exist either: the weights are said first.
    args = [str(squares), '--work-dir', str(tmp_path), '--no-validate', '--cfg-options']
    nothing = f'train_dataloader.dataset.data_root={tmp_path}/none'
    with pytest.raises(ValueError, match='no checkpoint is given.*model.backbone.init_cfg.checkpoint='):
        train_tool.main([*args, nothing])
    with pytest.raises(RuntimeError, match=r'of another shape \(stem.0.weight \(16, 3, 3, 3\) for \(8, 3, 7, 7\)'):
        other = ROOT / 'weights/attention56_cifar10_fast.safetensors'
        train_tool.main([*args, nothing, f'model.backbone.init_cfg.checkpoint={other}'])
    # A detector's own weights hold all: load_from, and --resume.
    train_tool.main(
        [*args, f'load_from={trained}/epoch_1.pth', 'train_cfg.max_epochs=1', 'optim_wrapper.optimizer.lr=0']
    )
    before = torch.load(trained / 'epoch_1.pth', weights_only=True)['state_dict']
    after = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['state_dict']
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    train_tool.main([str(squares), '--work-dir', str(tmp_path), '--no-validate', '--resume'])  # at its end already


def test_a_killed_detector_resumes_bit_for_bit_and_stops_at_nan(squares, classifier, tmp_path):
    def train(run, *options):
        args = [str(squares), '--work-dir', str(tmp_path / run), '--no-validate']
        options = (f'model.backbone.init_cfg.checkpoint={classifier}', 'train_cfg.max_epochs=2', *options)
        options += ('default_hooks.checkpoint.by_epoch=False', 'default_hooks.checkpoint.interval=1')
        train_tool.main([*args, '--cfg-options', *options])

    def saved(run):
        return torch.load(tmp_path / run / 'iter_4.pth', weights_only=True)

    train('whole')
    train('resumed', f'load_from={tmp_path}/whole/iter_3.pth', 'resume=True')  # as if killed in the second epoch
    whole, resumed = saved('whole')['state_dict'], saved('resumed')['state_dict']
    assert whole.keys() == resumed.keys() and all(torch.equal(value, resumed[name]) for name, value in whole.items())
    with pytest.raises(FloatingPointError, match='loss of iteration 1 .* is not finite.*loss_mask nan'):
        train('nan', 'model.roi_head.mask_head.loss_mask.loss_weight=nan')
    assert not list((tmp_path / 'nan').glob('*.pth'))


def test_a_detector_is_tested_drawn_and_written_down(squares, trained, tmp_path):
    import mmengine

    shown, out = tmp_path / 'shown', tmp_path / 'out.pkl'
    checkpoint = str(trained / 'epoch_1.pth')
    args = [str(squares), checkpoint, '--work-dir', str(tmp_path)]
    test_tool.main([*args, '--show-dir', str(shown), '--out', str(out)])
    pictures = {path.name: np.asarray(Image.open(path)) for path in shown.rglob('*.png')}
    assert pictures.keys() == {'0.png', '1.png', '2.png'}
    predictions = mmengine.load(out)
    assert len(predictions) == 3 and all(len(one['pred_instances']['scores']) <= 3 for one in predictions)
    assert all(isinstance(mask, dict) for mask in predictions[0]['pred_instances']['masks'])  # packed
    with pytest.raises(ValueError, match='no tta_pipeline'):
        test_tool.main([*args, '--tta'])


OWN = """
_base_ = '{root}/configs/detection/faster-rcnn_attention-resnet50_own.py'
model = dict(
    backbone=dict(arch={arch}, out_indices=(0, 1), norm_outputs=True, new_masks=False, init_cfg=None),
    neck=dict(in_channels=[8, 16], out_channels=8, num_outs=2),
    rpn_head=dict(in_channels=8, feat_channels=8, anchor_generator=dict(scales=[4], strides=[4, 8])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8, featmap_strides=[4, 8]),
        bbox_head=dict(in_channels=8, fc_out_channels=16),
    ),
)
data_root = '{data}'
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=data_root + '/val.json')
train_cfg = dict(max_epochs=1)
"""


def test_own_boxes_are_trained_and_evaluated_with_the_classes_of_their_file(squares, tmp_path):
    (tmp_path / 'images').symlink_to(squares.parent)
    config = tmp_path / 'own.py'
    config.write_text(OWN.format(root=ROOT, data=tmp_path, arch={**ARCH, '_delete_': True}))
    small = [f'{loader}_dataloader.dataset.pipeline.{i}.scale=(64,48)' for loader, i in (('train', 3), ('val', 1))]
    args = [str(config), '--work-dir', str(tmp_path / 'work'), '--cfg-options', *small]
    with pytest.raises(FileNotFoundError, match=r'(?s)train.json, which does not exist.*images/\*'):
        train_tool.main(args)
    for name in ('train', 'val'):
        (tmp_path / f'{name}.json').write_text(squares.with_name('boxes.json').read_text())
    train_tool.main(args)
    saved = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=True)
    assert saved['meta']['dataset_meta']['classes'] == ('square',)
    assert saved['state_dict']['roi_head.bbox_head.fc_cls.weight'].shape == (2, 16)  # with the background
    assert (tmp_path / 'work/best_coco_bbox_mAP_epoch_1.pth').exists()


def test_attention_of_a_detector_lies_on_the_original_image(squares, trained):
    detector = mmdet_apis.init_detector(str(squares), str(trained / 'epoch_1.pth'), device='cpu')
    images = [squares.with_name('0.png'), squares.with_name('1.png')]
    with record_attention(detector) as maps:
        results = mmdet_apis.inference_detector(detector, [str(path) for path in images])
    assert list(maps) == ['backbone.stage1.attention1.map', 'backbone.stage2.attention1.map']
    assert [tuple(one.shape) for one in maps.values()] == [(1, 8, 16, 16), (1, 16, 8, 8)]  # 48x56, padded to 64x64
    placed = maps_on_images(maps['backbone.stage1.attention1.map'], results[-1:])
    assert [tuple(one.shape) for one in placed] == [(8, 60, 70)]
    # The same net without any detector around it.
    bare = ResidualAttentionNet(arch=ARCH, out_indices=(0, 1), norm_outputs=True).eval()
    bare.load_state_dict(detector.backbone.state_dict())
    with record_attention(bare) as own:
        bare(torch.rand(1, 3, 64, 64))
    assert [f'backbone.{name}' for name in own] == list(maps)


def test_resnets_of_mmdetection_work_beside_ours():
    cfg = Config.fromstring("_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'", '.py')
    cfg.model.backbone.init_cfg = None
    detector = build(cfg).eval()
    assert type(detector.backbone).__module__.startswith('mmdet.')
    with DefaultScope.overwrite_default_scope('mmdet'):
        from mmdet.structures import DetDataSample

        sample = DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1, 1)))
        batch = dict(inputs=[torch.zeros(3, 64, 64, dtype=torch.uint8)], data_samples=[sample])
        with torch.no_grad():
            results = detector.test_step(batch)
    assert results[0].pred_instances.bboxes.shape[1] == 4
