import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmengine.structures import InstanceData
from PIL import Image
from torch import nn

import mmresattn  # noqa: F401  before MMDetection
from mmresattn.datasets.attention_maps import LoadAttentionMap
from mmresattn.models.detectors import DetectionBranch
from mmresattn.models.layers import attention_maps, class_heat, edit_attention, record_attention

structures = pytest.importorskip('mmdet.structures', reason='needs MMDetection')

BRANCH = dict(type='DetectionBranch', num_classes=3, in_channels=16, levels=(0, 2))
RESNET = dict(depth=18, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None)
LEVELS = dict(in_channels=[8, 16, 32, 64], out_channels=16, num_outs=4)
DETECTORS = dict(
    FasterRCNN=(
        'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
        dict(
            backbone=RESNET,
            neck=LEVELS,
            rpn_head=dict(
                in_channels=16, feat_channels=16, anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32])
            ),
            roi_head=dict(
                bbox_roi_extractor=dict(out_channels=16, roi_layer=dict(sampling_ratio=2)),
                bbox_head=dict(in_channels=16, fc_out_channels=16, num_classes=3),
            ),
        ),
    ),
    FCOS=(
        'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        dict(
            backbone=RESNET,
            neck={**LEVELS, 'start_level': 0},
            bbox_head=dict(
                num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1, strides=[4, 8, 16, 32],
                norm_cfg=dict(type='GN', num_groups=2),
                regress_ranges=((-1, 16), (16, 32), (32, 64), (64, 1e8)),
            ),
        ),
    ),
    ATSS=(
        'mmdet::atss/atss_r50_fpn_1x_coco.py',
        dict(
            backbone=RESNET,
            neck={**LEVELS, 'start_level': 0},
            bbox_head=dict(
                num_classes=3, in_channels=16, feat_channels=16, stacked_convs=0,
                anchor_generator=dict(strides=[4, 8, 16, 32]),
            ),
        ),
    ),
)  # fmt: skip


def config(detector):
    base, changes = DETECTORS[detector]
    cfg = Config.fromstring(f"_base_ = '{base}'", '.py')
    cfg.merge_from_dict(dict(model=changes))
    return cfg.model


def build(model):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(model)


def with_branch(model, **options):
    model = copy.deepcopy(model)
    model.update(type='AttentionBranchDetector', detector=model.type, branch={**BRANCH, **options})
    return model


def sample(boxes, labels, shape=(64, 96)):
    data = structures.DetDataSample(metainfo=dict(
        img_shape=shape, batch_input_shape=(64, 96), pad_shape=(64, 96), ori_shape=shape, scale_factor=(1.0, 1.0)
    ))  # fmt: skip
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    data.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor(labels, dtype=torch.long))
    return data


SAMPLES = [([[8, 8, 40, 40], [50, 20, 90, 60]], [0, 2]), ([[4, 10, 30, 50]], [1])]


@pytest.mark.parametrize('size', [(8, 12), (7, 5), (1, 1)])
def test_heat_is_the_mean_of_the_boxes_pixels(size):
    boxes = torch.tensor([[3, 2, 20, 11], [10, 5, 33, 40], [0, 0, 4, 3], [60, 34, 70, 35]], dtype=torch.float64)
    labels = torch.tensor([1, 1, 0, 3])
    heat = class_heat(boxes, labels, 5, (35, 70), size)
    expected = torch.zeros(5, *size, dtype=torch.float64)
    for (x1, y1, x2, y2), label in zip(boxes.long().tolist(), labels):
        pixels = np.zeros((35, 70))
        pixels[y1:y2, x1:x2] = 1
        fine = np.kron(pixels, np.ones(size))  # every pixel divides into equal parts that belong to one position
        share = fine.reshape(size[0], 35, size[1], 70).mean((1, 3))
        expected[label] = torch.maximum(expected[label], torch.from_numpy(share))
    torch.testing.assert_close(heat, expected, rtol=0, atol=1e-12)
    nothing = class_heat(torch.empty(0, 4), torch.empty(0, dtype=torch.long), 2, (35, 70), size)
    assert nothing.shape == (2, *size) and not nothing.any()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize('residual', [True, False])
def test_branch_by_its_formula(residual):
    torch.manual_seed(0)
    branch = DetectionBranch(3, 16, levels=(0, 2), residual=residual).double()
    for parameter in branch.parameters():
        nn.init.normal_(parameter, std=0.3)
    feats = [torch.randn(2, 16, *size, dtype=torch.float64) for size in [(6, 8), (3, 4), (2, 3)]]
    attended, seen = branch(feats)
    assert torch.equal(attended[1], feats[1]) and len(attended) == 3 and len(seen) == 2
    weights = {name: value.detach().numpy() for name, value in branch.named_parameters()}
    for level, one in zip((0, 2), seen):
        x = feats[level].numpy()
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        height, width = x.shape[2:]
        windows = np.stack([padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)], 2)
        y = np.einsum('nckhw,ock->nohw', windows, weights['convs.0.conv.weight'].reshape(16, 16, 9))
        groups = y.reshape(2, 2, -1)  # of 8 channels
        groups = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
        scale, shift = (weights[f'convs.0.gn.{name}'][None, :, None, None] for name in ('weight', 'bias'))
        y = np.maximum(groups.reshape(y.shape) * scale + shift, 0)
        logits = np.einsum('nchw,kc->nkhw', y, weights['class_maps.weight'][:, :, 0, 0])
        logits += weights['class_maps.bias'][None, :, None, None]
        attention = sigmoid(logits).max(1, keepdims=True)
        np.testing.assert_allclose(one.classes.detach(), logits, atol=1e-10)
        np.testing.assert_allclose(one.attention.detach(), attention, atol=1e-10)
        np.testing.assert_allclose(attended[level].detach(), (attention + residual) * x, atol=1e-10)


@pytest.mark.parametrize('target', ['boxes', 'image'])
def test_losses_by_their_formulas(target):
    torch.manual_seed(0)
    branch = DetectionBranch(
        3, 16, levels=(0, 2), target=target, loss_weight=0.5, map_loss=dict(type='AttentionMapLoss', loss_weight=2.0)
    ).double()
    nn.init.normal_(branch.class_maps.weight)
    _, seen = branch([torch.randn(3, 16, *size, dtype=torch.float64) for size in [(8, 12), (4, 6), (2, 3)]])
    samples = [sample(*SAMPLES[0], (48, 96)), sample(*SAMPLES[1]), sample([], [])]
    corrected = np.random.default_rng(0).random((48, 96))
    samples[0].set_metainfo(dict(gt_attention_map=corrected))
    losses = branch.loss(seen, samples)
    expected, distance = 0, 0
    for classes, attention in seen:
        classes, attention = classes.detach().numpy(), attention.detach().numpy()
        size = classes.shape[2:]
        if target == 'image':
            p = sigmoid(np.log(np.exp(classes).mean((2, 3))))
            t = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]])
        else:
            p = sigmoid(classes)
            heat = [class_heat(one.gt_instances.bboxes.double(), one.gt_instances.labels, 3, (64, 96), size)
                    for one in samples]  # fmt: skip
            t = torch.stack(heat).numpy()
        entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p))
        expected += 0.5 * entropy.sum(1).mean() / 2
        whole = np.zeros((64, 96))
        whole[:48] = corrected
        whole = nn.functional.interpolate(torch.from_numpy(whole)[None, None], size, mode='bilinear')[0, 0].numpy()
        distance += 2.0 * np.linalg.norm(whole - attention[0, 0]) / 3 / 2  # 3 images, 2 levels
    assert losses['loss_branch'].item() == pytest.approx(expected, abs=1e-9)
    assert losses['loss_map'].item() == pytest.approx(distance, abs=1e-6)  # a map is read in float32


@pytest.mark.parametrize('detector', DETECTORS)
def test_detector_keeps_its_heads_and_losses(detector):
    torch.manual_seed(0)
    model = config(detector)
    plain, branched = build(model), build(with_branch(model))
    assert isinstance(branched, type(plain)) and type(branched).__name__ == f'AttentionBranch{detector}'
    missing, unexpected = branched.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and missing and all(name.startswith('branch.') for name in missing)
    taps = attention_maps(branched)
    assert list(taps) == ['branch.maps.0', 'branch.maps.1'] and {tap.kind for tap in taps.values()} == {'spatial'}
    images = torch.randn(2, 3, 64, 96)
    samples = [sample(*one) for one in SAMPLES]

    def losses(net):
        torch.manual_seed(1)  # of the proposals that are drawn
        return net.train()(images, [one.clone() for one in samples], mode='loss')

    def predictions(net):
        with torch.no_grad():
            return net.eval()(images, [one.clone() for one in samples], mode='predict')

    closed = dict.fromkeys(taps, torch.zeros_like)
    with edit_attention(branched, closed):  # (1 + 0) P: the plain detector
        told, results = losses(branched), predictions(branched)
    own = losses(plain)
    assert told.keys() - own.keys() == {'loss_branch'}
    for name, value in own.items():
        torch.testing.assert_close(told[name], value)
    for one, other in zip(results, predictions(plain)):
        torch.testing.assert_close(one.pred_instances.scores, other.pred_instances.scores)
        torch.testing.assert_close(one.pred_instances.bboxes, other.pred_instances.bboxes)
    # Open, the map changes what the heads see, and their losses train it.
    told = losses(branched)
    rest = [value for name, value in told.items() if 'loss' in name and name != 'loss_branch']
    sum(value if isinstance(value, torch.Tensor) else sum(value) for value in rest).backward()
    assert branched.branch.class_maps.weight.grad.abs().max() > 0
    with record_attention(branched) as maps:
        predictions(branched)
    assert [tuple(one.shape) for one in maps.values()] == [(2, 1, 16, 24), (2, 1, 4, 6)]
    assert all(0 < one.min() and one.max() < 1 for one in maps.values())


def test_a_few_steps_teach_the_map_where_objects_are():
    """Bright squares of class 0 on noise; nothing but the branch's loss is trained."""
    torch.manual_seed(0)
    branch = DetectionBranch(1, 8, levels=(0,))
    branch.init_weights()
    places = torch.randint(0, 12, (16, 2))
    feats, samples = 0.3 * torch.randn(16, 8, 16, 16), []
    for i, (row, column) in enumerate(places.tolist()):
        feats[i, 0, row : row + 4, column : column + 4] += 3
        samples.append(sample([[4 * column, 4 * row, 4 * column + 16, 4 * row + 16]], [0]))
        samples[-1].set_metainfo(dict(batch_input_shape=(64, 64)))
    assert branch([feats])[1][0].attention.mean().item() == pytest.approx(0.01, abs=0.003)  # the prior
    optimizer = torch.optim.Adam(branch.parameters(), 0.05)
    for _ in range(30):
        loss = branch.loss(branch([feats])[1], samples)['loss_branch']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    attention = branch([feats])[1][0].attention.detach()
    inside = torch.stack(
        [class_heat(one.gt_instances.bboxes, one.gt_instances.labels, 1, (64, 64), (16, 16)) for one in samples]
    ).bool()
    assert attention[inside].mean() > 0.9 and attention[~inside].mean() < 0.1


def test_corrected_maps_come_through_the_pipeline_of_a_detector(tmp_path):
    """The map moves as its image does; boxes move once."""
    (tmp_path / 'maps').mkdir()
    square = np.zeros((40, 60), np.uint8)
    square[10:20, 5:25] = 255
    Image.fromarray(square).save(tmp_path / 'maps' / 'a.png')
    Image.fromarray(square).convert('RGB').save(tmp_path / 'a.png')
    moves = [dict(type='Resize', scale=(120, 80)), dict(type='RandomFlip', prob=1.0)]
    with DefaultScope.overwrite_default_scope('mmdet'):
        steps = [
            TRANSFORMS.build(dict(type='LoadImageFromFile')),
            TRANSFORMS.build(dict(type='LoadAnnotations', with_bbox=True)),
            LoadAttentionMap(str(tmp_path / 'maps'), transforms=moves),
            TRANSFORMS.build(dict(type='PackDetInputs', meta_keys=('img_shape', 'gt_attention_map'))),
        ]
        instances = [dict(bbox=[5, 10, 25, 20], bbox_label=0, ignore_flag=0)]
        results = dict(img_path=str(tmp_path / 'a.png'), instances=instances)
        for step in steps:
            results = step(results)
    packed = results['data_samples']
    assert packed.gt_instances.bboxes.tensor.tolist() == [[70.0, 20.0, 110.0, 40.0]]
    inside = packed.gt_attention_map[20:40, 70:110]
    assert packed.gt_attention_map.shape == (80, 120) and inside.mean() > 0.9
    assert packed.gt_attention_map.sum() == pytest.approx(800, rel=0.02)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="target is 'boxes' or 'image', not 'mask'"):
        DetectionBranch(3, 16, target='mask')
    with pytest.raises(ValueError, match='prior is between 0 and 1, not 1'):
        DetectionBranch(3, 16, prior=1)
    with pytest.raises(ValueError, match='one or more different levels'):
        DetectionBranch(3, 16, levels=(0, 0))
    with pytest.raises(ValueError, match=r'The neck has 1 levels; the branch asks for \[0, 2\]'):
        DetectionBranch(3, 16, levels=(0, 2))([torch.zeros(1, 16, 4, 4)])
    with pytest.raises(KeyError, match="There is no detector 'NoSuchDetector'"):
        build(dict(type='AttentionBranchDetector', detector='NoSuchDetector', branch=BRANCH))
