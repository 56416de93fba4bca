"""From a folder of corrections to a network that was trained by them, for each use."""

from inspect import signature

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATA_SAMPLERS, DATASETS, MODELS, TRANSFORMS

from mmresattn.apis import USES, build_runner, training_config
from mmresattn.apis.corrections import available_uses, continued
from mmresattn.datasets import Corrections
from mmresattn.datasets.correction_log import CorrectionLog
from mmresattn.models.layers import attention_maps, edit_attention, record_attention

SIDE, SQUARE = 32, 8
BACKBONE = dict(type='CIFARResNet', depth=8, base_channels=8)
HEAD = dict(type='LinearClsHead', num_classes=2, in_channels=32)
READ = [dict(type='LoadCheckedImage')]


def click(x, y, size, value=0):
    return dict(points=[[x, y]], size=size, value=value, strength=1)


def save(folder, image, strokes, attention=np.zeros((2, 2), np.uint16)):
    png = cv2.imencode('.png', attention)[1].tobytes()
    CorrectionLog(folder).save(dict(image=image, layer='neck.map', strokes=strokes), png)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Noise with a square in one of two corners; corrections, by a round brush, of eight of twelve images a class."""
    root = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(0)
    for label, colour in enumerate([(0, 0, 255), (255, 0, 0)]):
        for i in range(12):
            img = rng.integers(0, 120, (SIDE, SIDE, 3), np.uint8)
            x = (0, SIDE - SQUARE)[i % 2]
            img[:SQUARE, x : x + SQUARE] = colour
            file = root / 'images/train' / f'class{label}' / f'{i}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), img)
            if i < 8:
                name = f'class{label}/{i}.png'
                stroke = click((x + SQUARE / 2) / SIDE, SQUARE / 2 / SIDE, 1.4 * SQUARE / SIDE)
                attention = np.full((8, 8), 65535, np.uint16)
                attention[:2, x // 4 : x // 4 + 2] = 0
                save(root / 'edits', name, [stroke], attention)
    return root


def config(root, work_dir, abn=False):
    flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
    pipeline = [dict(type='ReplaySeed'), dict(type='KeepInMemory', transforms=READ), flip, dict(type='PackInputs')]
    plain = dict(type='ImageClassifier', backbone=BACKBONE, neck=dict(type='GlobalAveragePooling'), head=HEAD)
    branched = dict(
        type='AttentionBranchNetwork', backbone=BACKBONE, head=dict(type='AttentionBranchHead', num_classes=2)
    )
    return Config(
        dict(
            default_scope='mmpretrain',
            model=branched if abn else plain,
            data_preprocessor=dict(num_classes=2, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True),
            train_dataloader=dict(
                batch_size=8,
                num_workers=0,
                drop_last=True,
                sampler=dict(type='ReplaySampler', shuffle=True),
                collate_fn=dict(type='default_collate'),
                dataset=dict(type='PhotoFolder', data_root=str(root / 'images'), split='train', pipeline=pipeline),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.04)),
            default_hooks=dict(checkpoint=dict(type='WholeCheckpointHook', interval=1)),
            custom_hooks=[dict(type='ReplayHook')],
            randomness=dict(seed=0),
            work_dir=str(work_dir),
            log_level='ERROR',
            launcher='none',
        )
    )


def train(cfg):
    runner = build_runner(cfg, ['train_dataloader'])
    runner.train()
    return runner.model.eval()


@pytest.fixture(scope='module')
def trained(photos):
    """Configs and checkpoints of a plain network and of an Attention Branch Network."""
    found = {}
    for abn in (False, True):
        cfg = config(photos, photos / f'before{abn}', abn)
        train(cfg)
        found[abn] = config(photos, photos / f'before{abn}', abn), photos / f'before{abn}' / 'epoch_1.pth'
    return found


@pytest.mark.parametrize('kind', ['AttentionBranchHead', 'MultiTaskAttentionBranchHead', 'mmpretrain.LinearClsHead'])
def test_map_loss_is_offered_where_a_head_takes_it(kind):
    takes_it = 'map_loss' in signature(MODELS.get(kind)).parameters
    assert ('map_loss' in available_uses(dict(head=dict(type=kind)))) == takes_it
    assert available_uses(dict(head=dict(type=kind))).keys() >= USES.keys() - {'map_loss'}


@pytest.mark.parametrize('use', USES)
def test_every_use_trains_on_from_a_checkpoint(photos, trained, tmp_path, use):
    """Weights change by the correction, against the same training without it; what it does is seen on other images."""
    cfg, checkpoint = trained[use == 'map_loss']
    models = {}
    for name in ('nothing', use):
        if name == 'nothing':
            now = continued(cfg, checkpoint, 1)
            now.train_dataloader.sampler = dict(
                type='CorrectedSampler', corrections=str(photos / 'edits'), shuffle=True
            )
        else:
            now = training_config(cfg, checkpoint, photos / 'edits', use, 1)
            now = Config.fromstring(now.pretty_text, '.py')  # what is dumped to a file
        if name == 'gate':
            now.model.masker.steps = 2
        now.work_dir = str(tmp_path / name)
        models[name] = train(now)
    inner = models[use].state_dict()
    weight = 'classifier.backbone.conv1.weight' if use in ('gate', 'gradient_penalty') else 'backbone.conv1.weight'
    assert not torch.equal(models['nothing'].state_dict()['backbone.conv1.weight'], inner[weight])


def test_gate_hides_what_was_erased_and_nothing_else(photos, trained, tmp_path):
    cfg, checkpoint = trained[False]
    now = training_config(cfg, checkpoint, photos / 'edits', 'gate', 1)
    now.model.masker.steps = 120
    now.work_dir = str(tmp_path)
    model = train(now)
    first = torch.load(checkpoint, weights_only=True)['state_dict']
    own = model.state_dict()
    for name in model.masker.extractor.state_dict():  # of the plain checkpoint, and frozen
        assert torch.equal(own[f'masker.extractor.{name}'], first[f'backbone.{name}'])

    images = [cv2.imread(str(photos / f'images/train/class{c}/{i}.png')) for c in (0, 1) for i in range(8, 12)]
    inputs = torch.stack([torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) for image in images])
    inputs = inputs.float() / 127.5 - 1
    marked = torch.zeros(8, 1, SIDE, SIDE, dtype=torch.bool)
    for i in range(8):
        x = (0, SIDE - SQUARE)[i % 2]
        marked[i, :, :SQUARE, x : x + SQUARE] = True
    with torch.no_grad(), record_attention(model, ['shown']) as maps:
        scores = model(inputs)
    shown = maps['shown']
    assert shown.shape == marked.shape and set(shown.unique().tolist()) <= {0, 1}
    assert shown[marked].mean() < 0.05 and shown[~marked].mean() > 0.9

    with torch.no_grad():
        seen = model.prepare(inputs)
        assert torch.equal(seen, model.prepare(inputs))  # the same noise every time
        assert torch.equal(seen[:, :, 16:], inputs[:, :, 16:])
        recoloured = torch.where(marked & (shown == 0), -inputs, inputs)
        with edit_attention(model, {'shown': shown}):  # the colour of what is hidden cannot matter
            assert torch.equal(model(recoloured), scores)
        with edit_attention(model, {'shown': torch.ones(1, 1, 1, 1)}):
            torch.testing.assert_close(model(inputs), model.classifier(inputs))
    model.train()
    assert not torch.equal(model.prepare(inputs), model.prepare(inputs)) and not model.masker.training


def test_gate_exports_with_its_map(trained, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    from tools.deployment.export_onnx import export

    cfg, _ = trained[False]
    model = MODELS.build(dict(type='GatedClassifier', classifier=cfg.model, data_preprocessor=cfg.data_preprocessor))
    model.eval()
    export(model, torch.randn(2, 3, SIDE, SIDE), tmp_path / 'gate.onnx', ['shown'])
    run = onnxruntime.InferenceSession(str(tmp_path / 'gate.onnx'))
    assert [output.name for output in run.get_outputs()] == ['logits', 'shown']
    images = torch.randn(3, 3, SIDE, SIDE + 16)
    with torch.no_grad(), record_attention(model) as maps:
        expected = model(images, mode='tensor')
    scores, shown = map(torch.as_tensor, run.run(None, {'images': images.numpy()}))
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(shown, maps['shown'])


def test_areas_of_strokes_move_with_their_image(photos):
    """Erased and added areas of an image file of another size, flipped as the image is."""
    strokes = [click(0.25, 0.25, 0.2), click(0.75, 0.25, 0.2, value=1), click(0.25, 0.75, 0.2, value=0.5)]
    save(photos / 'both', 'class0/0.png', strokes)
    flip = dict(type='RandomFlip', prob=1.0, direction='horizontal')
    load = TRANSFORMS.build(dict(type='LoadCorrection', corrections=str(photos / 'both'), transforms=[flip]))
    results = load(dict(img_path='/elsewhere/class0/0.png', img=np.zeros((40, 40, 3), np.uint8), ori_shape=(80, 80)))
    erased, added = results['gt_erased'], results['gt_added']
    assert erased.shape == added.shape == (40, 40) and 'gt_attention_map' not in results
    assert erased[10, 30] == added[10, 10] == 1 and erased[10, 10] == added[10, 30] == erased[30, 30] == 0
    assert erased.sum() == pytest.approx(np.pi * 4**2, rel=0.15)
    assert 'gt_erased' not in load(dict(img_path='class0/1.png', img=np.zeros((8, 8, 3), np.uint8)))


@pytest.mark.parametrize('fill', ['noise', 'neighbours'])
def test_replaced_pixels_are_the_erased_ones(fill):
    img = np.full((16, 16, 3), 7, np.uint8)
    img[2:8, 2:8] = 200
    erased, added = torch.zeros(16, 16), torch.zeros(16, 16)
    erased[2:8, 2:8], added[2:8, 2:4] = 1, 1
    replace = TRANSFORMS.build(dict(type='ReplaceErased', fill=fill))
    new = replace(dict(img=img, gt_erased=erased, gt_added=added))['img']
    gone = ((erased == 1) & (added == 0)).numpy()
    assert (new[~gone] == img[~gone]).all() and (new[gone] != 200).mean() > 0.9


def test_corrected_images_come_as_often_as_said(photos, trained):
    cfg, checkpoint = trained[False]
    now = training_config(cfg, checkpoint, photos / 'edits', 'augment', 1)
    dataset, corrected = DATASETS.build(now.train_dataloader.dataset), Corrections(photos / 'edits')
    sampler = DATA_SAMPLERS.build(
        dict(type='CorrectedSampler', corrections=str(photos / 'edits'), share=0.25, seed=0),
        default_args=dict(dataset=dataset),
    )
    draws = list(sampler)
    assert len(draws) == len(dataset) == 20
    assert all(corrected.of(dataset.get_data_info(draw)['img_path']) for draw in draws[3::4])
    assert len({int(draw) for draw in draws[3::4]}) == 5
    sampler.skip(10)
    assert [(draw, draw.key) for draw in sampler] == [(draw, draw.key) for draw in draws[10:]]
    assert pseudo_collate([dataset[draws[3]]])['data_samples'][0].gt_erased.shape == (SIDE, SIDE)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(use='erase'), 'use is one of'),
        (dict(use='map_loss'), 'needs an AttentionBranchNetwork'),
        (dict(corrections='nowhere'), 'There is no'),
        (dict(corrections='others'), 'None of the 1 corrected images'),
    ],
)
def test_mistakes_are_named_before_work_is_lost(photos, trained, tmp_path, change, message):
    save(photos / 'others', 'other/0.png', [])
    cfg, checkpoint = trained[False]
    args = dict(corrections='edits', use='gate') | change
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        now = training_config(cfg, checkpoint, photos / args['corrections'], args['use'])
        now.work_dir = str(tmp_path)
        train(now)


def test_a_gate_around_an_attention_branch_network_is_initialised():
    branched = dict(
        type='AttentionBranchNetwork', backbone=BACKBONE, head=dict(type='AttentionBranchHead', num_classes=2)
    )
    gated = MODELS.build(dict(type='GatedClassifier', classifier=branched))
    gated.init_weights()
    assert list(attention_maps(gated)) == ['classifier.neck.map', 'shown']
