"""The report of a classifier of photographs, by its hook and by its command line."""

import base64
import re
from html import unescape

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmresattn.apis import load_classifier
from mmresattn.evaluation.report import make_report
from mmresattn.visualization import overlay
from tests.conftest import ROOT
from tools import report, train

CLASSES = {'coat & hat': (200, 40, 40), '<shirt>': (40, 200, 40), 'sock': (40, 40, 200)}
CONFIG = """
_base_ = ['{root}/configs/_base_/datasets/photos.py', '{root}/configs/_base_/schedules/photos.py']
image_size = 32
data_preprocessor = dict(num_classes=3, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
resize = dict(type='Resize', scale=(32, 32))
pipeline = [dict(type='LoadCheckedImage'), resize, dict(type='PackInputs')]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=pipeline))
val_dataloader = dict(batch_size=4, dataset=dict(pipeline=pipeline))
test_dataloader = dict(batch_size=4, dataset=dict(pipeline=pipeline))
model = {model}
"""
BACKBONE = dict(type='CIFARResNet', depth=8, base_channels=8, stem_channels=8)
MODELS = dict(
    abn=dict(type='AttentionBranchNetwork', backbone=BACKBONE, head=dict(type='AttentionBranchHead', num_classes=3)),
    plain=dict(
        type='ImageClassifier',
        backbone=BACKBONE,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=32),
    ),
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Photographs of three colours with noise, of two shapes."""
    root, draw = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
    for split, number in dict(train=4, val=5, test=6).items():
        for name, colour in CLASSES.items():
            (root / split / name).mkdir(parents=True)
            for i in range(number):
                pixels = np.array(colour) + draw.normal(0, 40, (48 + 24 * (i % 2), 64, 1))
                cv2.imwrite(str(root / split / name / f'{i}.png'), pixels.clip(0, 255).astype(np.uint8))
    return root


def config(path, kind):
    path.write_text(CONFIG.format(root=ROOT, model=MODELS[kind]))
    return str(path)


def pictures(page):
    """The pictures of each card, as arrays in BGR."""
    cards = re.findall(r'<article.*?</article>', page, re.S)
    return [
        [
            cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1)
            for data in re.findall(r'base64,([^"]+)', card)
        ]
        for card in cards
    ]


def text(page):
    """Everything below the heading but the pictures."""
    return re.sub('base64,[^"]+', '', page[page.index('<div class="tiles">') :])


def test_a_training_ends_with_a_report_that_agrees_with_counting(tmp_path, folder, capsys):
    file = config(tmp_path / 'small.py', 'abn')
    options = [f'data_root={folder}', 'train_cfg.max_epochs=1']
    train.main([file, '--work-dir', str(tmp_path / 'run'), '--cfg-options', *options])
    checkpoint = str(tmp_path / 'run/epoch_1.pth')
    by_hook = (tmp_path / 'run/report.html').read_text()
    options = ['--cfg-options', f'data_root={folder}']
    report.main([file, checkpoint, '--out', str(tmp_path / 'new/val.html'), '--split', 'val', *options])
    by_tool = (tmp_path / 'new/val.html').read_text()
    assert text(by_hook) == text(by_tool)

    report.main([file, checkpoint, '--out', str(tmp_path / 'test.html'), *options])
    page = (tmp_path / 'test.html').read_text()
    assert 'Report on 18 images' in capsys.readouterr().out
    # Against counting, from the tensors of the model.
    model, loader = load_classifier(file, checkpoint, dict(data_root=str(folder)))
    logits, labels = [], []
    with torch.no_grad():
        for batch in loader:
            data = model.data_preprocessor(batch)
            logits.append(model(data['inputs'], mode='tensor'))
            labels += [int(sample.gt_label) for sample in data['data_samples']]
    scores, labels = torch.cat(logits).softmax(1).double().numpy(), np.array(labels)
    predicted, names = scores.argmax(1), sorted(CLASSES)
    right = np.count_nonzero(predicted == labels)
    assert f'<b>{100 * right / 18:.1f} %</b>' in page and f'<b>{18 - right}</b>' in page
    cells = {unescape(cell) for cell in re.findall(r'title="([^"]+: \d+ of \d+)"', page)}
    assert cells == {
        f'{a} as {b}: {np.count_nonzero((labels == i) & (predicted == j))} of 6'
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    }
    # Every mistake is shown, the surest first, and then what is least sure; each once.
    wrong = [i for i in np.argsort(-scores.max(1), kind='stable') if predicted[i] != labels[i]]
    top = np.sort(scores, 1)
    unsure = [i for i in np.argsort(top[:, -1] - top[:, -2], kind='stable') if i not in wrong[:12]][:12]
    paths = [sample['img_path'] for sample in (loader.dataset.get_data_info(i) for i in range(18))]
    files = [unescape(name) for name in re.findall(r'<div class="file">(.*?)</div>', page)]
    expected = [path.removeprefix(f'{folder}/').removesuffix('.png') for path in paths]
    assert files == [expected[i] for i in (*wrong[:12], *unsure)]
    assert '<shirt>' not in page and 'http' not in page and not re.search('src="(?!data:)', page)
    # Photographs in their own shape, with the map over them.
    for (photo, drawn), name in zip(pictures(page), files, strict=True):
        original = cv2.imread(str(folder / f'{name}.png'))
        assert photo.shape == drawn.shape == original.shape
        assert np.abs(photo.astype(float) - original).mean() < 30  # JPEG of noise
        assert np.abs(drawn.astype(float) - photo).mean() > 20


def test_a_network_without_maps_is_explained_by_grad_cam_for_answer_and_truth(tmp_path, folder):
    pytest.importorskip('pytorch_grad_cam')
    from mmresattn.visualization import class_activation_maps

    file = config(tmp_path / 'small.py', 'plain')
    options = dict(data_root=str(folder))
    model, loader = load_classifier(file, None, options)
    cfg = Config.fromfile(file)
    page = make_report(model, loader.dataset, cfg, title='plain', shown=3)
    captions = re.findall(r'<figcaption>for (.*?)</figcaption>', page)
    assert 'Grad-CAM' in page and len(captions) >= 6 and {unescape(name) for name in captions} <= {*CLASSES}
    first = pictures(page)[0]
    assert len(first) == 3
    name = unescape(re.search(r'<div class="file">(.*?)</div>', page)[1])
    answer = sorted(CLASSES).index(unescape(captions[0]))
    packed = next(s for s in loader.dataset if s['data_samples'].img_path.endswith(f'{name}.png'))
    cam = class_activation_maps(model, packed['inputs'][None], [answer])[0]
    expected = overlay(cv2.imread(str(folder / f'{name}.png'))[..., ::-1].copy(), cam)[..., ::-1]
    assert np.abs(first[1].astype(float) - expected).mean() < 20


class LeftHalf(torch.nn.Module):
    """A masker that finds the left half of every image."""

    def forward(self, images):
        left = torch.arange(images.shape[3]) < images.shape[3] // 2
        return (20.0 * left - 10).expand(len(images), 1, *images.shape[2:])


def test_a_gate_shows_what_the_network_was_shown(tmp_path, folder):
    file = config(tmp_path / 'small.py', 'plain')
    cfg = Config.fromfile(file)
    cfg.model = dict(type='GatedClassifier', classifier=dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    cfg.dump(file)
    model, loader = load_classifier(file, None, dict(data_root=str(folder)))
    model.masker = LeftHalf()
    page = make_report(model, loader.dataset, Config.fromfile(file), title='gated', shown=2)
    assert page.count('what the network was shown</figcaption>') == len(pictures(page)) == 4
    for photo, shown in pictures(page):
        middle = photo.shape[1] // 2
        assert np.abs(shown[:, : middle - 4].astype(float) - 128).mean() < 3  # apart from the edge, grey
        assert np.abs(shown[:, middle + 4 :].astype(float) - photo[:, middle + 4 :]).mean() < 3


def test_many_labels_have_no_report(tmp_path, folder):
    file = config(tmp_path / 'small.py', 'plain')
    model, loader = load_classifier(file, None, dict(data_root=str(folder)))
    samples = [loader.dataset[i] for i in range(2)]
    for sample in samples:
        sample['data_samples'].set_gt_label([0, 1])
    with pytest.raises(ValueError, match='one label and one score per class'):
        make_report(model, samples, Config.fromfile(file), title='')
