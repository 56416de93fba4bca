import base64
import io
import json
import os
import shutil
import subprocess
import threading
import zipfile
from datetime import datetime, timedelta, timezone

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from mmresattn.datasets.attention_maps import LoadAttentionMap, read_attention_map
from mmresattn.datasets.broken_images import BrokenImage
from mmresattn.editor import AttentionEditor, paint
from mmresattn.models.layers import attention_maps, edit_attention, record_attention
from mmresattn.visualization import class_activation_maps

CLASSES = ['ant', 'bee', 'cat']


def wide(**attention):
    backbone = dict(type='CIFARWideResNet', depth=10, widen_factor=1, **attention)
    head = dict(type='LinearClsHead', num_classes=3, in_channels=64)
    return dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)


def residual():
    net = wide()
    net['backbone'] = dict(type='ResidualAttentionNet', arch=dict(base='attention56-cifar', channels=(8, 8, 8)))
    net['head']['in_channels'] = 8
    return net


def pay():
    return dict(
        type='ImageClassifier',
        backbone=dict(type='CIFARWideResNet', depth=10, widen_factor=1, out_indices=(1, 2)),
        neck=dict(type='PayAttention', in_channels=[32, 64]),
        head=dict(type='PayAttentionHead', num_classes=3, in_channels=[32]),
    )


THIRD = (False, False, True)  # of the stages, at 8x8
NETS = {
    'residual': residual(),
    'abn': dict(
        type='AttentionBranchNetwork',
        backbone=dict(type='CIFARResNet', depth=8),
        head=dict(type='AttentionBranchHead', num_classes=3),
    ),
    'se': wide(attention=dict(type='SqueezeExcitation', stages=THIRD)),
    'nonlocal': wide(attention=dict(type='NonLocalAttention', stages=THIRD)),
    'dot': wide(attention=dict(type='NonLocalAttention', stages=THIRD, mode='dot_product')),
    'aa': wide(attention=dict(type='AttentionAugmentedConv', stages=THIRD, heads=2, size=8, upsilon=0.25)),
    'pay': pay(),
}
PIPELINE = [dict(type='LoadCheckedImage'), dict(type='PackInputs')]
CROP = [PIPELINE[0], dict(type='ResizeEdge', scale=40), dict(type='CenterCrop', crop_size=32), PIPELINE[1]]


def write(folder, net, pipeline=PIPELINE, meta=True):
    """Config and checkpoint of a network with random weights, none of which is zero."""
    cfg = dict(
        model=net,
        data_preprocessor=dict(num_classes=3, mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True),
        test_dataloader=dict(dataset=dict(type='CustomDataset', data_root='none', pipeline=pipeline)),
        default_scope='mmpretrain',
    )
    config, checkpoint = folder / 'net.py', folder / 'net.pth'
    Config(cfg).dump(config)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(net, data_preprocessor=cfg['data_preprocessor']))
    for value in model.parameters():
        if value.dim() > 1:
            torch.nn.init.normal_(value, std=0.1)
        else:
            torch.nn.init.uniform_(value, 0.5, 1)
    saved = dict(state_dict=model.state_dict())
    torch.save(saved | dict(meta=dict(dataset_meta=dict(classes=CLASSES)) if meta else {}), checkpoint)
    return config, checkpoint


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for i, name in enumerate(['bee/0', 'bee/deep/1', 'cat/2', 'cat/3']):
        file = folder / f'{name}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), rng.integers(0, 256, (32, 32 + 8 * (i == 3), 3), np.uint8))
    return folder


@pytest.fixture
def editor(tmp_path, images):
    return AttentionEditor(*write(tmp_path, NETS['abn']), images, tmp_path / 'out', 'cpu')


def test_findings_K4_2_hidden_folders_are_no_classes(tmp_path, images):
    copy = shutil.copytree(images, tmp_path / 'images')
    shutil.copytree(copy / 'cat', copy / '.ipynb_checkpoints')
    shutil.copytree(copy / 'bee', copy / 'bee/.thumbnails')
    found = AttentionEditor(*write(tmp_path, NETS['abn']), copy, tmp_path / 'out', 'cpu')
    known = AttentionEditor(*write(tmp_path, NETS['abn']), images, tmp_path / 'other', 'cpu')
    assert found.names == known.names
    assert [found.label(name) for name in found.names] == [known.label(name) for name in known.names]


LEFT = np.zeros((32, 32, 2), np.float32)
LEFT[:, :16] = 0.0, 1.0  # look away from the left half
IN = LEFT.copy()
IN[:, :16] = 1.0, 0.25  # a quarter of the way to full attention


def left(m, kind):
    """The same by hand."""
    if kind == 'pairwise':
        edited = m.unflatten(-1, (8, 8)).clone()
        edited[..., :4] = 0
        return edited.flatten(-2)
    edited = m.clone()
    edited[..., : m.shape[-1] // 2] = 0
    return edited


def part(m, kind):
    def mix(x, high):
        return 0.75 * x + 0.25 * high

    if kind == 'pairwise':
        edited = m.unflatten(-1, (8, 8)).clone()
        edited[..., :4] = mix(edited[..., :4], m.abs().amax(-1)[..., None, None])
        return edited.flatten(-2)
    edited, half = m.clone(), m.shape[-1] // 2
    edited[..., :half] = mix(edited[..., :half], m.amax() if kind == 'shares' else 1)
    return edited


@pytest.mark.parametrize('painted, by_hand', [(LEFT, left), (IN, part)], ids=['out', 'in'])
@pytest.mark.parametrize('net', NETS)
def test_edits_are_those_by_hand(net, painted, by_hand, tmp_path, images):
    editor = AttentionEditor(*write(tmp_path, NETS[net]), images, tmp_path / 'out', 'cpu')
    layer = editor.layers[-1]
    kind = attention_maps(editor.inferencer.model)[layer].kind
    shares = net in ('nonlocal', 'aa', 'pay')

    def edit(m):
        if kind == 'channel':  # the mean over positions moves all gates
            return m / 2 if by_hand is left else m + 0.125 * (1 - m)
        edited = by_hand(m, 'shares' if net == 'pay' else kind)
        if shares:
            edited = edited / edited.sum((2, 3) if net == 'pay' else 3, keepdim=True)
        return edited

    model = editor.inferencer.model
    batch = dict(inputs=torch.from_numpy(cv2.imread(str(images / 'bee/0.png'))).permute(2, 0, 1)[None].clone())
    inputs = model.data_preprocessor(batch, False)['inputs']
    with torch.no_grad(), edit_attention(model, {layer: edit}), record_attention(model, [layer]) as maps:
        expected = model(inputs, mode='tensor').softmax(1)[0]
    result = editor.edit('bee/0.png', layer, painted)
    torch.testing.assert_close(result.raw[layer], maps[layer][0])
    torch.testing.assert_close(result.scores, expected)
    before = editor.predict('bee/0.png')
    assert not torch.equal(before.scores, result.scores)
    shown = result.maps[layer]
    assert shown.dim() == 2 and shown.min() >= 0 and shown.max() <= 1
    if by_hand is left and kind != 'channel':
        assert not shown[:, : shown.shape[1] // 2].any() and shown[:, shown.shape[1] // 2 :].any()
    nothing = editor.edit('bee/0.png', layer, np.zeros((5, 7, 2), np.float32))
    assert torch.equal(nothing.scores, before.scores) and torch.equal(nothing.raw[layer], before.raw[layer])


def test_whole_maps_replace_and_are_saved_as_training_reads_them(editor, images):
    drawn = torch.rand(16, 16)
    result = editor.edit('bee/deep/1.png', 'neck.map', drawn)
    torch.testing.assert_close(result.raw['neck.map'], drawn[None])
    entry = editor.save('bee/deep/1.png', 'neck.map', drawn)
    root = editor.out / 'maps/neck.map'
    loader = LoadAttentionMap(map_root=str(root), image_root=str(images))
    found = loader.find(str(images / 'bee/deep/1.png'))
    assert found == editor.out / entry['map'] and loader.find(str(images / 'bee/0.png')) is None
    assert cv2.imread(str(found), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    np.testing.assert_allclose(read_attention_map(found), drawn, atol=1 / 65535)
    assert (entry['image'], entry['label'], entry['layer']) == ('bee/deep/1.png', 1, 'neck.map')
    label = int(result.scores.argmax())
    said = {'label': label, 'class': CLASSES[label], 'score': round(result.scores[label].item(), 6)}
    assert entry['after'] == said and entry['before'] != said
    assert datetime.now(timezone.utc) - datetime.fromisoformat(entry['time']) < timedelta(minutes=1)
    digest = subprocess.run(['sha256sum', editor.out.parent / 'net.pth'], capture_output=True, text=True).stdout.split()
    assert entry['checkpoint'] == digest[0]
    with zipfile.ZipFile(io.BytesIO(editor.export())) as archive:
        assert archive.namelist() == ['manifest.jsonl', entry['map']]
        assert json.loads(archive.read('manifest.jsonl')) == entry
        assert archive.read(entry['map']) == found.read_bytes()
    np.testing.assert_allclose(editor.own_map('bee/deep/1.png', 'neck.map'), drawn, atol=1 / 65535)
    np.testing.assert_allclose(
        editor.own_map('bee/0.png', 'neck.map'), editor.predict('bee/0.png').maps['neck.map'], atol=1e-6
    )


def test_a_cropped_view(tmp_path, images):
    """The test pipeline enlarges 32x40 to 40x50 and takes the 32x32 in the middle."""
    editor = AttentionEditor(*write(tmp_path, NETS['abn'], CROP), images, tmp_path / 'out', 'cpu')
    painted = np.zeros((40, 50, 2), np.float32)  # in the pixels of the enlarged image
    painted[4:20, 9:25, :] = 1.0, 1.0  # the upper left quarter of what is seen
    raw = editor.edit('cat/3.png', 'neck.map', painted).raw['neck.map'][0]
    before = editor.predict('cat/3.png').raw['neck.map'][0]
    torch.testing.assert_close(raw[:8, :8], torch.ones(8, 8), atol=1e-3, rtol=0)
    torch.testing.assert_close(raw[8:, 8:], before[8:, 8:], atol=1e-3, rtol=0)
    saved = read_attention_map(editor.out / editor.save('cat/3.png', 'neck.map', painted)['map'])
    assert saved.shape == (20, 25)  # cells of two pixels of the enlarged image, over all of it
    np.testing.assert_allclose(saved[2:9, 5:12], 1, atol=1e-3)
    np.testing.assert_allclose(saved[11:18, 13:20], before[9:16, 8:15], atol=0.25)
    np.testing.assert_allclose(saved[0], saved[0, 0], atol=1e-4)  # not seen


def test_strokes():
    def stroke(points, **other):
        return dict(points=points, size=0.25, value=1, strength=1) | other

    dot = paint([stroke([[0.5, 0.5]])], (8, 8))
    assert dot.shape == (256, 256, 2)
    area = dot[..., 1].sum() / (np.pi * 32**2)
    assert area == pytest.approx(1, abs=0.07) and dot[128, 128].tolist() == [1, 1] and not dot[:90].any()
    # Half in, then half out again, leaves 0.5 * 0.5 of white under a black of 0.5.
    twice = paint([stroke([[0.5, 0.5]], strength=0.5), stroke([[0.5, 0.5]], strength=0.5, value=0)], (8, 8))[128, 128]
    np.testing.assert_allclose(twice, [0.25 / 0.75, 0.75], rtol=1e-6)
    line = paint([stroke([[0.1, 0.5], [0.9, 0.5]])], (10, 20))
    assert line.shape[:2] == (128, 256) and line[64, 30:225, 1].min() == 1 and line[10, :, 1].max() == 0
    for wrong in (
        [stroke([])],
        [stroke([[0, 1, 1, 2]])],
        [stroke([[0, float('nan')]])],
        [stroke([[0, 9e99]])],
        [stroke([[0, 0]], size=0)],
        [stroke([[0, 0]], strength=2)],
        [stroke([[0, 0]], value='a')],
        [dict(points=[[0, 0]])],
        ['x'],
        'x',
        [stroke([[0, 0]])] * 501,
        [stroke([[0, 0]] * 20_001)],
        [stroke([[0, 0]], tool='pencil')],
        [stroke([[0, 0], [1, 1]], tool='polygon')],
        [stroke([[0, 0, 2]])],
        [stroke([[0, 0]], softness=-1)],
        [dict(tool='map', strength=1, png='x')],
        [dict(tool='map', strength=1, png=base64.b64encode(cv2.imencode('.png', np.zeros((300, 2)))[1]).decode())],
    ):
        with pytest.raises(ValueError, match='stroke|points|Points|copied map'):
            paint(wrong, (8, 8))


def test_every_tool():
    def stroke(tool, **other):
        return dict(tool=tool, value=1, strength=1) | other

    square = stroke('polygon', points=[[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]])
    area = paint([square], (8, 8))[..., 1]
    assert area[66:190, 66:190].min() == 1 and not area[:62].any() and area.sum() == pytest.approx(128**2, rel=0.03)
    erased = paint([square, stroke('eraser', points=[[0, 0.5], [1, 0.5]], size=0.25)], (8, 8))
    assert not erased[100:156].any() and erased[70:90, 70:180].min() == 1
    line = dict(points=[[0.1, 0.5], [0.9, 0.5]], size=0.25)
    hard, soft = (paint([stroke('brush', softness=softness, **line)], (8, 8))[:, 128, 1] for softness in (0, 1))
    assert hard[100:156].min() == 1 and soft[128] > 0.9 and 0.3 < soft[106] < 0.6 and not soft[:60].any()
    assert (np.diff(soft[:128]) >= -1e-3).all()
    many = paint([stroke('brush', softness=1, **line), stroke('brush', softness=0.3, **line)] * 9, (8, 8))
    assert many.max() <= 1
    pressed = dict(points=[[0.1 * i, 0.5, 0.1 * i] for i in range(1, 10)], size=0.25)
    thickness = paint([stroke('brush', **pressed)], (8, 8))[..., 1].sum(0)
    assert thickness[60] < 0.6 * thickness[200]
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    png = base64.b64encode(cv2.imencode('.png', ramp)[1]).decode()
    copied = paint([dict(tool='map', strength=0.5, png=png)], (64, 64))
    np.testing.assert_allclose(copied[..., 0], cv2.resize(np.float32(ramp / 65535), (256, 256)), atol=1e-5)
    assert (copied[..., 1] == 0.5).all()


def test_names_cannot_leave_the_folders(editor, images, tmp_path):
    (images.parent / 'secret.png').write_bytes((images / 'bee/0.png').read_bytes())
    for name in ('../secret.png', str(images.parent / 'secret.png'), 'bee/../bee/0.png', '', 'bee', 'bee/0.png\0'):
        with pytest.raises(KeyError, match='none of the 4 images'):
            editor.save(name, 'neck.map', LEFT)
    for layer in ('../../x', '/tmp/x', 'neck', ''):
        with pytest.raises(KeyError, match='no layer'):
            editor.save('bee/0.png', layer, LEFT)
    assert not list(editor.out.iterdir())
    (editor.out / 'maps').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    (editor.out / 'maps/neck.map').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(ValueError, match='Remove the link'):
        editor.save('bee/0.png', 'neck.map', LEFT)
    assert not list((tmp_path / 'elsewhere').iterdir()) and not editor.log.saved
    for line in ('{"image": "bee/0.png", "layer": "neck.map", "map": "../../secret.png"}', '{', '[]'):
        (editor.out / 'manifest.jsonl').write_text(line + '\n')
        with pytest.raises(ValueError, match='line 1, was not written'):
            AttentionEditor(tmp_path / 'net.py', tmp_path / 'net.pth', images, editor.out, 'cpu')


def test_what_cannot_be_opened(editor, images, tmp_path, monkeypatch):
    args = tmp_path / 'net.py', tmp_path / 'net.pth'
    with pytest.raises(FileNotFoundError, match='config'):
        AttentionEditor(tmp_path / 'no.py', args[1], images, tmp_path / 'o')
    with pytest.raises(FileNotFoundError, match='checkpoint'):
        AttentionEditor(args[0], tmp_path / 'no.pth', images, tmp_path / 'o')
    with pytest.raises(FileNotFoundError, match='folder of images'):
        AttentionEditor(*args, tmp_path / 'no', tmp_path / 'o')
    with pytest.raises(FileNotFoundError, match='have no images'):
        AttentionEditor(*args, editor.out, tmp_path / 'o')
    with pytest.raises(ValueError, match='within the images'):
        AttentionEditor(*args, images, images / 'maps')
    twins = tmp_path / 'twins'
    twins.mkdir()
    for suffix in ('.png', '.jpg'):
        cv2.imwrite(str(twins / f'a{suffix}'), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match='one map'):
        AttentionEditor(*args, twins, tmp_path / 'o')
    with pytest.raises(ValueError, match='from 0 to 1'):
        editor.edit('bee/0.png', 'neck.map', 2 * LEFT)
    with pytest.raises(ValueError, match='painted is'):
        editor.edit('bee/0.png', 'neck.map', LEFT[..., :1])
    broken = tmp_path / 'broken' / 'bee'
    broken.mkdir(parents=True)
    (broken / 'text.png').write_text('no image')
    whole = (images / 'bee/0.png').read_bytes()
    (broken / 'half.png').write_bytes(whole[: len(whole) // 2])
    (broken / 'large.png').write_bytes(cv2.imencode('.png', np.zeros((300, 400, 3), np.uint8))[1])
    (broken / 'good.png').write_bytes(whole)
    monkeypatch.setenv('MMRESATTN_MAX_PIXELS', '100000')
    small = AttentionEditor(*args, broken.parent, tmp_path / 'o', 'cpu')
    for name, match in (('text', 'none of the formats'), ('half', 'cannot be read'), ('large', '400 x 300 pixels')):
        with pytest.raises(BrokenImage, match=match):
            small.predict(f'bee/{name}.png')
    small.predict_all()
    assert sorted(small.broken) == ['bee/half.png', 'bee/large.png', 'bee/text.png']


def test_mistakes_and_labels(editor, images, tmp_path):
    assert editor.names == ['bee/0.png', 'bee/deep/1.png', 'cat/2.png', 'cat/3.png']
    assert [editor.label(name) for name in editor.names] == [1, 1, 2, 2]
    editor.predict_all(batch_size=2)
    wrong = editor.mistakes()
    expected = [name for name in editor.names if int(editor.predict(name).scores.argmax()) != editor.label(name)]
    assert wrong == expected and wrong and not editor.broken
    # Two folders are not three classes: without their names a number would be a guess.
    unsure = AttentionEditor(*write(tmp_path, NETS['abn'], meta=False), images, tmp_path / 'o', 'cpu')
    assert unsure.label('bee/0.png') is None and unsure.classes == ['0', '1', '2'] and unsure.mistakes() == []


def test_two_threads_never_mix(editor):
    """Each sees what it would see alone, also while the mistakes are searched."""
    names = editor.names[:2]
    values = [np.full((16, 16), value, np.float32) for value in (0.1, 0.9)]
    alone = [editor.edit(name, 'neck.map', value).scores for name, value in zip(names, values)]
    seen = [[], []]

    def work(i):
        for _ in range(8):
            result = editor.edit(names[i], 'neck.map', values[i])
            seen[i].append((result.scores, result.raw['neck.map']))

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    wrong = editor.mistakes()
    for thread in threads:
        thread.join()
    for i in (0, 1):
        assert len(seen[i]) == 8
        for scores, attention in seen[i]:
            torch.testing.assert_close(scores, alone[i])
            torch.testing.assert_close(attention, torch.from_numpy(values[i])[None])
    plain = [name for name in editor.names if int(editor.predict(name).scores.argmax()) != editor.label(name)]
    assert wrong == plain


def test_results_are_readable_by_others(editor):
    """Files get the permissions that the umask gives, and no unfinished one stays."""
    entry = editor.save('bee/0.png', 'neck.map', LEFT)
    umask = os.umask(0)
    os.umask(umask)
    assert (editor.out / entry['map']).stat().st_mode & 0o777 == 0o666 & ~umask
    files = sorted(path.name for path in editor.out.rglob('*') if path.is_file())
    assert files == sorted(['.lock', '0.png', 'manifest.jsonl', f'{entry["sha256"]}.png'])


def test_saving_without_a_stroke_saves_nothing(editor):
    with pytest.raises(ValueError, match='Nothing is painted'):
        editor.save('bee/0.png', 'neck.map', paint([], (32, 32)))
    assert not editor.log.saved and not (editor.out / 'manifest.jsonl').exists()


def test_superpixels_cover_the_image_once(editor, monkeypatch):
    rows, columns = np.indices((205, 256))
    stripes = np.stack([(rows // 70) * 80, (columns // 90) * 80, rows * 0], -1).astype(np.uint8)
    monkeypatch.setattr(editor, 'picture', lambda name: stripes)
    outlines = editor.superpixels('cat/3.png', 9)
    assert 4 <= len(outlines) <= 40
    strokes = [dict(tool='polygon', points=points, value=1, strength=1) for points in outlines]
    covered = np.sum([paint([stroke], (32, 40))[..., 1] for stroke in strokes], 0)
    assert covered.shape == (205, 256) and 0.9 < covered.mean() < 1.15
    with pytest.raises(ValueError, match='from 4 to 400'):
        editor.superpixels('cat/3.png', 1000)


def test_evidence_is_that_of_the_inferencer(editor):
    pytest.importorskip('pytorch_grad_cam')
    sample = editor.inferencer.pipeline(editor.images / 'bee/0.png')
    expected = class_activation_maps(editor.inferencer.model, sample.packed['inputs'][None], [2])[0]
    np.testing.assert_allclose(editor.evidence('bee/0.png', 2), cv2.resize(expected.numpy(), (256, 256)), atol=1e-4)
    edited = editor.evidence('bee/0.png', 2, ('neck.map', LEFT))
    assert not np.allclose(edited, editor.evidence('bee/0.png', 2), atol=1e-2)


def test_a_deleted_image_is_named(editor, tmp_path, images):
    copy = shutil.copytree(images, tmp_path / 'images')
    found = AttentionEditor(tmp_path / 'net.py', tmp_path / 'net.pth', copy, tmp_path / 'o', 'cpu', 'Ann')
    found.save('bee/0.png', 'neck.map', LEFT)
    (copy / 'bee/0.png').unlink()
    with pytest.raises(FileNotFoundError, match='bee/0.png is no longer there'):
        found.predict('bee/0.png')
    again = AttentionEditor(tmp_path / 'net.py', tmp_path / 'net.pth', copy, tmp_path / 'o', 'cpu')
    (note,) = again.notes()
    assert (
        'no longer in' in note
        and 'bee/0.png' in note
        and again.log.saved['bee/0.png', 'neck.map']['annotator'] == 'Ann'
    )
