import functools
import http.server
import threading

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.apis import ImageClassificationInferencer, get_model

from mmresattn.apis import AttentionInferencer
from mmresattn.datasets.image_files import BrokenImage
from mmresattn.models.layers import record_attention
from mmresattn.visualization import overlay
from mmresattn.visualization.attention_figure import short_name
from tests.conftest import ROOT

TINY = dict(base='attention56-cifar', channels=(8, 8, 8), modules=(1, 1, 0), poolings=(1, 1, 1), t=1, bottom_units=1)
CLASSES = tuple('abcde')
CROP = [dict(type='ResizeEdge', scale=32, edge='short'), dict(type='CenterCrop', crop_size=24)]


def config(pipeline=CROP, **model):
    return Config(
        dict(
            default_scope='mmpretrain',
            data_preprocessor=dict(mean=[120.0, 110.0, 100.0], std=[60.0] * 3, to_rgb=True, num_classes=5),
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='ResidualAttentionNet', arch=TINY),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=5, in_channels=8),
            )
            | model,
            test_dataloader=dict(
                dataset=dict(
                    type='CustomDataset',
                    pipeline=[dict(type='LoadImageFromFile'), *pipeline, dict(type='PackInputs')],
                )
            ),
        )
    )


def photo(seed, height=40, width=56):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope='module')
def inferencer(device):
    torch.manual_seed(0)
    return AttentionInferencer(config(), pretrained=False, device=device, classes=CLASSES)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    for i in range(3):
        cv2.imwrite(str(folder / f'photo{i}.png'), photo(i))
    (folder / 'notes.txt').write_text('no image')
    return folder


def test_predictions_are_those_of_mmpretrain(inferencer, photos):
    paths = [str(photos / f'photo{i}.png') for i in range(3)]
    theirs = ImageClassificationInferencer(inferencer.model, classes=CLASSES)(paths, batch_size=2)
    for given in (paths, str(photos), [photo(0), photo(1), paths[2]]):
        ours = inferencer(given, batch_size=2)
        assert len(ours) == 3
        for our, their in zip(ours, theirs):
            assert (our['pred_label'], our['pred_class']) == (their['pred_label'], their['pred_class'])
            assert our['pred_score'] == pytest.approx(their['pred_score'], abs=1e-6)
            np.testing.assert_allclose(our['pred_scores'], their['pred_scores'], atol=1e-6)
    assert [one['name'] for one in ours] == ['0', '1', 'photo2']
    assert len({one['pred_score'] for one in ours}) == 3


def test_maps_are_those_that_pass_the_taps(inferencer, photos):
    found = inferencer(photo(1))[0]['attention']
    image = cv2.resize(photo(1), (int(56 * 32 / 40), 32))
    left = round((image.shape[1] - 24) / 2)
    image = image[4:28, left : left + 24, ::-1].astype(np.float32)
    x = torch.from_numpy(((image - np.float32([120, 110, 100])) / 60).transpose(2, 0, 1).copy())[None]
    with torch.no_grad(), record_attention(inferencer.model) as expected:
        inferencer.model(x, mode='tensor')
    assert list(found) == list(expected) and found['backbone.stage2.attention1.map'].shape == (8, 12, 12)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name][0], atol=1e-4, rtol=1e-4)
    only = inferencer(photo(1), layers=['backbone.stage2.attention1.map'])[0]['attention']
    assert list(only) == ['backbone.stage2.attention1.map']


def test_batches_change_nothing(inferencer, device):
    """Also of images whose sizes differ, where there is no crop."""
    net = AttentionInferencer(inferencer.model, device=device)
    net.pipeline.steps = net.pipeline.steps[-1:]  # PackInputs
    images = [photo(0), photo(1), photo(2, 24, 40), photo(3)]
    alone = [net(one)[0] for one in images]
    together = net(images, batch_size=3)
    assert [one['name'] for one in together] == ['0', '1', '2', '3']
    for one, same in zip(alone, together):
        np.testing.assert_allclose(one['pred_scores'], same['pred_scores'], atol=1e-6)
        for name, attention in one['attention'].items():
            torch.testing.assert_close(attention, same['attention'][name], atol=1e-5, rtol=1e-4)


def test_maps_lie_on_the_original_image(inferencer):
    """The part that was cropped is NaN; the rest is the mean of the map, interpolated over the crop."""
    result = inferencer(photo(1), on_image=True, reduction='mean')[0]
    name = 'backbone.stage1.attention1.map'
    placed = result['attention_on_image'][name]
    assert placed.shape == (40, 56)
    inside = ~placed.isnan()
    assert inside.any(1).nonzero().flatten().tolist() == list(range(5, 35))  # 24 of 32, which were 40
    assert 29 <= inside.any(0).sum() <= 31
    mean = result['attention'][name].mean(0)[None, None]  # 24, 24
    expected = F.interpolate(mean, (30, 30), mode='bilinear', align_corners=False)[0, 0]
    first = inside.any(0).nonzero()[0].item()
    shifted = min((placed[5:35, first + d : first + d + 30] - expected)[:, 2:-2].abs().max() for d in (0, -1, 1))
    assert shifted < 0.5 * (mean.max() - mean.min())  # the crop begins within a pixel
    strongest = inferencer(photo(1), on_image=True)[0]['attention_on_image'][name]
    channel = result['attention'][name].flatten(1).var(1).argmax()
    values = result['attention'][name][channel]
    assert strongest[inside].max() <= values.max() + 1e-6 and strongest[inside].min() >= values.min() - 1e-6


def test_pictures_are_overlays_of_the_original(inferencer, photos, tmp_path):
    results = inferencer([str(photos), str(photos / 'photo0.png')], on_image=True, show_dir=tmp_path / 'a' / 'b')
    assert [one['name'] for one in results] == ['photo0', 'photo1', 'photo2', 'photo0_2']
    names = ('stage1.attention1', 'stage2.attention1')
    assert {path.name for path in (tmp_path / 'a/b').iterdir()} == {
        f'{one["name"]}.{name}.png' for one in results for name in names
    }
    expected = overlay(photo(1)[..., ::-1].copy(), results[1]['attention_on_image'][f'backbone.{names[0]}.map'])
    drawn = cv2.imread(str(tmp_path / 'a/b' / f'photo1.{names[0]}.png'))[..., ::-1]
    np.testing.assert_array_equal(drawn, expected)


def test_data_samples(inferencer):
    (sample,) = inferencer(photo(0), return_datasamples=True, on_image=True)
    result = inferencer(photo(0))[0]
    assert sample.pred_label.item() == result['pred_label']
    assert sample.attention.keys() == result['attention'].keys() == sample.attention_on_image.keys()


def test_frames_of_a_video(inferencer, tmp_path):
    path = str(tmp_path / 'clip.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 5, (56, 40))
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no videos')
    for i in range(3):
        writer.write(photo(i))
    writer.release()
    results = inferencer([path, photo(0)], batch_size=2)
    assert [one['name'] for one in results] == ['clip_000000', 'clip_000001', 'clip_000002', '1']
    np.testing.assert_allclose(results[0]['pred_scores'], results[3]['pred_scores'], atol=0.02)  # JPEG
    (tmp_path / 'none.mp4').write_bytes(b'no video')
    with pytest.raises(BrokenImage, match='none.mp4'):
        inferencer(str(tmp_path / 'none.mp4'))


def test_an_address(inferencer, photos):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(photos))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_address[1]}/photo1.png'
        (found,) = inferencer(address)
        server.shutdown()
    assert found['name'] == 'photo1' and found['pred_score'] == inferencer(photo(1))[0]['pred_score']


def test_figures(inferencer, tmp_path, saved_figures):
    result = inferencer.draw(photo(0), tmp_path / 'maps.png', channels=3)
    titles = [axis.get_title() for axis in saved_figures['maps.png'].axes]
    assert result['attention_on_image']
    for name in result['attention_on_image']:  # the three strongest channels of each
        assert sum(title.startswith(f'{short_name(name)} [') for title in titles) == 3
    inferencer.draw_masks(photo(0), tmp_path / 'masks.svg', channels=2)
    text = (tmp_path / 'masks.svg').read_text()
    assert text.count('>stage1.attention1<') == text.count('>stage2.attention1<') == 2 and 'features before' in text
    with pytest.raises(ValueError, match='not maps.jpg'):
        inferencer.draw(photo(0), 'maps.jpg')
    with pytest.raises(ValueError, match='shows one image; this input has 2'):
        inferencer.draw([photo(0), photo(1)], tmp_path / 'maps.png')


def test_class_activation_maps_beside(inferencer, tmp_path):
    pytest.importorskip('pytorch_grad_cam')
    result = inferencer.draw(photo(0), tmp_path / 'maps.png', cams=['gradcam'])
    cam = result['attention_on_image']['gradcam']
    assert cam.shape == (40, 56) and torch.equal(cam.isnan(), list(result['attention_on_image'].values())[0].isnan())


def test_what_is_wrong_is_said(inferencer, photos, tmp_path):
    with pytest.raises(FileNotFoundError, match='no image, folder or video .*nowhere.png'):
        inferencer([photo(0), str(tmp_path / 'nowhere.png')])
    whole = (photos / 'photo0.png').read_bytes()
    (tmp_path / 'half.png').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenImage, match='half.png cannot be read as an image: '):
        inferencer(str(tmp_path / 'half.png'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty has no images'):
        inferencer(str(tmp_path / 'empty'))
    with pytest.raises(ValueError, match=r'got float64 of \(4,\)'):
        inferencer(np.zeros(4))
    with pytest.raises(ValueError, match='list is empty'):
        inferencer([])
    with pytest.raises(ValueError, match='not int'):
        inferencer(3)
    with pytest.raises(KeyError, match=r"No attention map named \['head'\]"):
        inferencer(photo(0), layers=['head'])
    with pytest.raises(ValueError, match="not 'median'"):
        inferencer(photo(0), reduction='median')
    with pytest.raises(ValueError, match='batch_size is at least 1, not 0'):
        inferencer(photo(0), batch_size=0)


def test_models_that_do_not_do(tmp_path):
    resnet = dict(
        backbone=dict(type='CIFARResNet', depth=8), head=dict(type='LinearClsHead', num_classes=5, in_channels=64)
    )
    with pytest.raises(ValueError, match='no attention maps. Models that have: ResidualAttentionNet'):
        AttentionInferencer(config(**resnet), pretrained=False)
    with pytest.raises(ValueError, match='No weights are known for this config'):
        AttentionInferencer(config())
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        AttentionInferencer(config(), 'nowhere.pth')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        bare = MODELS.build(config().model)
    with pytest.raises(ValueError, match='does not know its config'):
        AttentionInferencer(bare)
    torch.save(dict(state_dict=bare.backbone.state_dict(), meta={}), tmp_path / 'part.pth')
    with pytest.raises(RuntimeError, match='does not fit the model'):
        AttentionInferencer(config(), str(tmp_path / 'part.pth'))
    se = dict(
        backbone=dict(type='AttentionResNet', depth=18, attention=dict(type='SqueezeExcitation'), base_channels=4,
                      stem_channels=8),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=32),
    )  # fmt: skip
    channels = AttentionInferencer(config(**se), pretrained=False)
    found = channels(photo(0), on_image=True)[0]
    assert found['attention']['backbone.layer1.0.se_layer.map'].shape == (4, 1, 1) and not found['attention_on_image']
    with pytest.raises(ValueError, match='one number per channel'):
        channels(photo(0), show_dir=tmp_path)


def test_by_name_config_file_and_built_model(tmp_path, device):
    """All three have the weights of the repository, and the classes of a checkpoint come with it."""
    by_name = AttentionInferencer('attention56_cifar10_fast', device=device)
    path = f'{ROOT}/configs/resattn/attention56_cifar10_fast.py'
    weights = f'{ROOT}/weights/attention56_cifar10_fast.safetensors'
    expected = by_name(photo(0))[0]['pred_scores']
    np.testing.assert_array_equal(AttentionInferencer(path, weights, device)(photo(0))[0]['pred_scores'], expected)
    built = get_model(path, device=device)
    assert not np.allclose(AttentionInferencer(built)(photo(0))[0]['pred_scores'], expected)
    np.testing.assert_allclose(AttentionInferencer(built, weights)(photo(0))[0]['pred_scores'], expected, rtol=1e-5)
    meta = dict(dataset_meta=dict(classes=list('0123456789')))
    torch.save(dict(state_dict=built.state_dict(), meta=meta), tmp_path / 'named.pth')
    named = AttentionInferencer(path, str(tmp_path / 'named.pth'), device)(photo(0))[0]
    assert named['pred_class'] == str(named['pred_label'])


def test_self_attention_and_attention_branches(tmp_path):
    nonlocal_net = dict(
        backbone=dict(type='AttentionResNet', depth=18, base_channels=4, stem_channels=8, out_indices=(3,),
                      attention=dict(type='NonLocalAttention', sub_sample=True, stages=(False, True, False, False))),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=32),
    )  # fmt: skip
    net = AttentionInferencer(config([], **nonlocal_net), pretrained=False)
    whole, from_a_query = (net(photo(0), on_image=True, query=query)[0] for query in (None, (20, 30)))
    name, *_ = whole['attention_on_image']
    assert whole['attention'][name].shape == (1, 5 * 7, 2 * 3)  # 40x56 at stride 8, keys pooled
    assert whole['attention_on_image'][name].shape == (40, 56)
    expected = whole['attention'][name][0, 2 * 7 + 3].view(1, 1, 2, 3)
    expected = F.interpolate(expected, (40, 56), mode='bilinear', align_corners=False)[0, 0]
    torch.testing.assert_close(from_a_query['attention_on_image'][name], expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match='outside of what the network sees'):
        net(photo(0), on_image=True, query=(20, 60))

    branches = dict(
        type='AttentionBranchNetwork',
        backbone=dict(type='CIFARResNet', depth=8),
        neck=dict(type='AttentionBranchNeck'),
        head=dict(type='AttentionBranchHead', num_classes=5),
    )
    result = AttentionInferencer(config(**branches), pretrained=False)(photo(0), on_image=True)[0]
    assert 0 <= result['pred_label'] < 5 and {one.shape for one in result['attention_on_image'].values()} == {(40, 56)}


def kept_figures(monkeypatch):
    """The figures that the inferencer writes from now on."""
    import mmresattn.apis.attention_inferencer as module

    figures, save = [], module.save_figure
    monkeypatch.setattr(module, 'save_figure', lambda figure, *args: (figures.append(figure), save(figure, *args)))
    return figures


def test_a_detector(tmp_path, device, monkeypatch):
    apis = pytest.importorskip('mmdet.apis')
    cfg = Config.fromfile(ROOT / 'configs/detection/faster-rcnn_attention56-cifar_fpn_bccd.py')
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    ours = AttentionInferencer(cfg, pretrained=False, device=device)
    cv2.imwrite(str(tmp_path / 'cells.png'), photo(0, 90, 120))
    (result,) = ours(str(tmp_path / 'cells.png'), on_image=True, reduction='mean')
    ours.model.cfg = cfg
    with DefaultScope.overwrite_default_scope('mmdet'):
        expected = apis.inference_detector(ours.model, str(tmp_path / 'cells.png'))
    torch.testing.assert_close(result['prediction'].pred_instances.bboxes, expected.pred_instances.bboxes)
    torch.testing.assert_close(result['prediction'].pred_instances.scores, expected.pred_instances.scores)
    name = 'backbone.stage1.attention1.map'
    assert result['attention'][name].shape[1:] == (72, 96)  # 144x192 at stride 2
    expected = F.interpolate(result['attention'][name].mean(0)[None, None], (90, 120), mode='bilinear')[0, 0]
    torch.testing.assert_close(result['attention_on_image'][name], expected, atol=1e-4, rtol=1e-3)
    figures = kept_figures(monkeypatch)
    scores = result['prediction'].pred_instances.scores
    threshold = scores.sort(descending=True).values[2].item()  # three boxes
    ours.draw(str(tmp_path / 'cells.png'), tmp_path / 'figure.png', reduction='mean', score_thr=threshold, dpi=40)
    with_boxes, over = (axis.images[0].get_array() for axis in figures[0].axes[:2])
    changed = (np.asarray(with_boxes) != np.asarray(over)).any(2)
    outlines = np.zeros_like(changed)
    for left, top, right, bottom in result['prediction'].pred_instances.bboxes[scores >= threshold].tolist():
        box = slice(max(int(top) - 1, 0), int(bottom) + 3), slice(max(int(left) - 1, 0), int(right) + 3)
        outlines[box] = True
    assert changed.any() and not (changed & ~outlines).any()
    assert sum(int(part.split()[0]) for part in figures[0].axes[0].get_title().split(', ')) == 3
    built = AttentionInferencer(ours.model)  # as init_detector gives it
    del built.model._config
    assert AttentionInferencer(built.model)(str(tmp_path / 'cells.png'))[0]['prediction'].scale_factor == (1.6, 1.6)


def test_a_segmenter(tmp_path, device, monkeypatch):
    apis = pytest.importorskip('mmseg.apis')
    cfg = Config.fromfile(ROOT / 'configs/segmentation/upernet_attention56-cifar_1xb4-1200_dsb2018-128x128.py')
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    ours = AttentionInferencer(cfg, pretrained=False, device=device)
    image = photo(0, 64, 80)
    (result,) = ours(image, on_image=True)
    ours.model.cfg = cfg
    with DefaultScope.overwrite_default_scope('mmseg'):
        expected = apis.inference_model(ours.model, image)
    assert torch.equal(result['prediction'].pred_sem_seg.data, expected.pred_sem_seg.data)
    assert {one.shape for one in result['attention_on_image'].values()} == {(64, 80)}
    figures = kept_figures(monkeypatch)
    classes = result['prediction'].pred_sem_seg.data[0]
    ours.draw(image, tmp_path / 'figure.png', dpi=40)
    with_classes, over = (np.asarray(axis.images[0].get_array()) for axis in figures[0].axes[:2])
    np.testing.assert_array_equal((with_classes != over).any(2), (classes > 0).numpy())
    assert f'{100 * (classes > 0).float().mean():.0f} %' in figures[0].axes[0].get_title()
    cfg.model.test_cfg = dict(mode='slide', crop_size=(32, 32), stride=(16, 16))
    with pytest.raises(ValueError, match="mode='whole'"):
        AttentionInferencer(cfg, pretrained=False)


TRANSFORMER = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=16),
    img_size=24,
    patch_size=6,
)


def test_transformers_of_mmpretrain_have_maps_too(photos, tmp_path, saved_figures):
    torch.manual_seed(0)
    head = dict(type='VisionTransformerClsHead', num_classes=5, in_channels=16)
    inferencer = AttentionInferencer(config(backbone=TRANSFORMER, neck=None, head=head), pretrained=False)
    (result,) = inferencer(str(photos / 'photo0.png'), on_image=True)
    (theirs,) = ImageClassificationInferencer(inferencer.model)(str(photos / 'photo0.png'))
    np.testing.assert_allclose(result['pred_scores'], theirs['pred_scores'], atol=1e-6)
    first, second = result['attention'].values()
    assert list(result['attention']) == ['backbone.layers.0.attn', 'backbone.layers.1.attn']
    assert first.shape == (2, 17, 17)
    assert set(result['attention_on_image']) == {*result['attention'], 'rollout'}
    # The class token's row of the rollout, at the cells' centres: the network sees the middle of the photograph.
    mixed = [(one.mean(0) + torch.eye(17)) / 2 for one in (first, second)]
    row = (mixed[1] @ mixed[0])[0, 1:].view(4, 4)
    placed = result['attention_on_image']['rollout']
    finite = placed[placed.isfinite()]
    assert row.min() - 1e-6 <= finite.min() and finite.max() <= row.max() + 1e-6
    corner = [one.isfinite().nonzero()[0] for one in (placed[20], placed[:, 28])]
    assert placed[corner[1], corner[0]].item() == pytest.approx(row[0, 0].item(), abs=0.02)
    inferencer.draw(str(photos / 'photo0.png'), tmp_path / 'maps.png')
    panel = next(axis for axis in saved_figures['maps.png'].axes if axis.get_title() == 'rollout')
    drawn = np.ma.masked_invalid(panel.images[-1].get_array())
    np.testing.assert_allclose(drawn.filled(np.nan), placed, atol=1e-5)
