"""One road from a file to a picture: each test names the faults (K2 ...) that it pins."""

import json
import os
import re
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmpretrain.models.utils import SELayer
from PIL import Image
from torchvision.models import resnet18

from mmresattn.apis import AttentionInferencer, load_classifier
from mmresattn.datasets import LoadCheckedImage
from mmresattn.datasets.image_files import BrokenImage, check_image
from mmresattn.editor import AttentionEditor
from mmresattn.engine import AttentionVisualizationHook
from mmresattn.models.layers import NonLocalAttention, SqueezeExcitation, record_attention
from mmresattn.visualization import (
    REDUCTIONS,
    ImagePipeline,
    ImageSources,
    UniqueNames,
    attention_figure,
    data_set_sample,
    map_grid,
    plain_text,
    reduce_channels,
    show_image,
    spatial_maps,
)
from tests.conftest import ROOT
from tools import test as test_tool
from tools.analysis_tools import get_flops
from tools.visualization import vis_attention, vis_cam

TINY = dict(base='attention56-cifar', channels=(8, 8, 8), modules=(1, 1, 0), poolings=(1, 1, 1), t=1, bottom_units=1)
random = np.random.default_rng(0)


def config(dataset=None, steps=(), load=None, channels=3, mean=110.0, std=60.0, head=None, **options):
    """A tiny network on a data set."""
    steps = [load or dict(type='LoadImageFromFile'), *steps, dict(type='PackInputs')]
    dataset = {**(dataset or dict(type='CustomDataset')), 'pipeline': steps}
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    return Config(
        dict(
            default_scope='mmpretrain',
            custom_imports=dict(imports=['mmresattn']),
            data_preprocessor=dict(mean=[mean] * channels, std=[std] * channels, to_rgb=channels == 3, num_classes=3),
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='ResidualAttentionNet', arch=TINY, in_channels=channels),
                neck=dict(type='GlobalAveragePooling'),
                head=head or dict(type='LinearClsHead', num_classes=3, in_channels=8),
            ),
            test_dataloader=dict(**loader, dataset=dataset),
            test_evaluator=dict(type='Accuracy'),
            test_cfg=dict(),
            visualizer=dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
            **options,
        )
    )


def checkpoint(cfg, folder):
    """The config and random weights as files."""
    cfg.dump(folder / 'tiny.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.manual_seed(0)
        model = MODELS.build({'data_preprocessor': cfg.data_preprocessor, **cfg.model})
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'tiny.pth')
    return str(folder / 'tiny.py'), str(folder / 'tiny.pth')


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def smooth(height=24, width=32, channels=3, top=256, dtype=np.uint8):
    coarse = random.integers(0, top, (height // 8, width // 8, channels)).astype(np.float32)
    large = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, channels)
    return (large[..., 0] if channels == 1 else large).astype(dtype)


def test_K2_1_files_are_read_by_the_loading_step_of_the_config(tmp_path, device):
    """16-bit RGB: the inferencer and the editor give the scores that tools/test.py does."""
    for i in range(3):
        write(tmp_path / 'images' / 'abc'[i] / f'{i}.png', smooth(top=65536, dtype=np.uint16))
    load = dict(type='LoadImageFromFile', color_type='unchanged')
    dataset = dict(type='CustomDataset', data_prefix=str(tmp_path / 'images'))
    files = checkpoint(config(dataset, load=load, mean=30000.0, std=15000.0), tmp_path)
    model, loader = load_classifier(*files)
    with torch.no_grad():
        expected = [model.test_step(batch)[0].pred_score for batch in loader]
    inferencer = AttentionInferencer(*files, device=device)
    for result, scores in zip(inferencer(str(tmp_path / 'images'), on_image=True), expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(result['pred_scores']), scores, rtol=1e-5, atol=1e-6)
    as_bytes = inferencer(cv2.imread(str(tmp_path / 'images/a/0.png')))[0]['pred_scores']
    assert not np.allclose(as_bytes, expected[0])  # so the test can fail
    editor = AttentionEditor(*files, tmp_path / 'images', tmp_path / 'out', device)
    torch.testing.assert_close(editor.predict('a/0.png').scores, expected[0], rtol=1e-5, atol=1e-6)


@TRANSFORMS.register_module(force=True)
class ReadArrayOfTest:
    """A loading step by somebody else: arrays of five channels."""

    def __call__(self, results):
        image = np.load(results['img_path'])
        return {**results, 'img': image, 'img_shape': image.shape[:2], 'ori_shape': image.shape[:2]}


@pytest.mark.parametrize(
    ('channels', 'load'),
    [(1, dict(type='LoadImageFromFile', color_type='grayscale')), (5, dict(type='ReadArrayOfTest'))],
)
def test_K2_2_any_number_of_channels_and_depth(tmp_path, channels, load, capsys, device):
    image = smooth(channels=channels)
    for i in range(2):
        if channels == 1:
            write(tmp_path / f'images/{i}.png', image)
        else:
            (tmp_path / 'images').mkdir(exist_ok=True)
            np.save(tmp_path / f'images/{i}.npy', image.astype(np.uint16) * 16)
    ending = '.png' if channels == 1 else '.npy'
    (tmp_path / 'list.txt').write_text(f'0{ending} 0\n1{ending} 2\n')
    dataset = dict(type='CustomDataset', data_prefix=str(tmp_path / 'images'), ann_file=str(tmp_path / 'list.txt'),
                   extensions=('.png', '.npy'))  # fmt: skip
    files = checkpoint(config(dataset, load=load, channels=channels), tmp_path)
    path = str(tmp_path / f'images/0{ending}')
    inferencer = AttentionInferencer(*files, device=device)
    (result,) = inferencer(path, on_image=True)
    assert {placed.shape for placed in result['attention_on_image'].values()} == {(24, 32)}
    for args in ([path, *files], [*files, '--indices', '0', '1']):
        vis_attention.main([*args, '--out', str(tmp_path / 'out.png'), '--dpi', '50'])
    get_flops.main([files[0], '--shape', '24'])
    test_tool.main([*files, '--work-dir', str(tmp_path / 'run'), '--show-dir', str(tmp_path / 'shown')])
    assert {path.name for path in (tmp_path / 'shown').iterdir()} == {'0.png', '1.png'}

    # The hook of a training draws such images, too.
    sample = data_set_sample(load_classifier(*files)[1].dataset, 0)
    drawn = []
    hook = AttentionVisualizationHook()
    hook.samples, hook.layers = [sample], None
    runner = type('Runner', (), {})()
    runner.model, runner.visualizer = inferencer.model, type('V', (), dict(add_image=lambda *a: drawn.append(a[2])))()
    hook._draw(runner, 1)
    shown = show_image(image if channels == 1 else image.astype(np.uint16) * 16)
    np.testing.assert_array_equal(drawn[0][:144, 2:194], shown.repeat(6, 0).repeat(6, 1))


def test_K2_2_how_images_are_shown_is_one_rule():
    grey = np.array([[0, 100, 255]], np.uint8)
    np.testing.assert_array_equal(show_image(grey), np.repeat(grey[..., None], 3, 2))
    five = np.arange(10, dtype=np.uint8).reshape(1, 2, 5)
    assert show_image(five).tolist() == [[[2, 1, 0], [7, 6, 5]]]  # the first three, as BGR
    for top in (4095, 65535):
        deep = np.array([[0, top // 2 + 1, top]], np.uint16)
        assert show_image(deep)[0, :, 0].tolist() == [0, 128, 255]
    assert show_image(np.array([[0, 100, 255]], np.uint16))[0, :, 0].tolist() == [0, 100, 255]
    assert show_image(np.array([[0, 0.5, 1]]))[0, :, 0].tolist() == [0, 128, 255]
    assert show_image(np.array([[0, 100.0, 255]], np.float32))[0, :, 0].tolist() == [0, 100, 255]
    assert show_image(np.array([[-2.0, 0, 2, np.nan]]))[0, :, 0].tolist() == [0, 128, 255, 128]
    assert show_image(np.array([[-5, 5]], np.int16))[0, :, 0].tolist() == [0, 255]
    assert show_image(np.full((2, 2), -1.0)).max() == 0
    with pytest.raises(ValueError, match=r'\(height, width, channels\); got float64 of \(3,\)'):
        show_image(np.zeros(3))


@pytest.fixture(scope='module')
def net(device):
    """A tiny inferencer whose pipeline tests exchange."""
    torch.manual_seed(0)
    return AttentionInferencer(config(), pretrained=False, device=device)


def test_K2_3_equalised_images(net, monkeypatch):
    """By the real pixels: predictions and maps are those of the pipeline, and lie where they should."""
    steps = [dict(type=name, prob=1.0) for name in ('Equalize', 'AutoContrast')]
    steps.append(dict(type='CenterCrop', crop_size=16))
    monkeypatch.setattr(net, 'pipeline', ImagePipeline(config(steps=steps)))
    (result,) = net(smooth(24, 32), on_image=True)
    for placed in result['attention_on_image'].values():
        rows, columns = torch.nonzero(~placed.isnan(), as_tuple=True)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 19, 8, 23)


def test_K2_4_a_view_costs_nothing_where_nobody_asks(net, monkeypatch):
    steps = [dict(type='ResizeEdge', scale=24), dict(type='CenterCrop', crop_size=16)]
    monkeypatch.setattr(net, 'pipeline', ImagePipeline(config(steps=steps)))
    calls = []
    monkeypatch.setattr('mmresattn.visualization.original_image._follow', lambda *args: calls.append(args) or 1 / 0)
    assert net(smooth())[0]['pred_label'] >= 0 and not calls
    with pytest.raises(ZeroDivisionError):
        net(smooth(), on_image=True)


def test_K2_4_known_steps_run_once_on_large_images():
    """Twelve megapixels: no step is run twice and no array of the size of the image is made beside a copy."""
    counted = []

    class Resize(TRANSFORMS.get('Resize')):
        def transform(self, results):
            counted.append(results['img'].shape)
            return super().transform(results)

    Resize.__module__ = 'mmcv.transforms'
    cfg = config(steps=[Resize(scale=(32, 24))], load=dict(type='LoadImageFromFile'))
    sample = ImagePipeline(cfg)(np.zeros((3000, 4000, 3), np.uint8), follow=True)
    assert counted == [(3000, 4000, 3)] and sample.view.scale == (24 / 3000, 32 / 4000)


def test_K2_5_maps_are_drawn_by_their_kind(tmp_path):
    torch.manual_seed(0)
    layers = torch.nn.Sequential(NonLocalAttention(4), SqueezeExcitation(4, ratio=2))
    with torch.no_grad(), record_attention(layers) as maps:
        layers(torch.rand(1, 4, 6, 8))
    spatial = spatial_maps(layers, maps, (6, 8), (2.5, 3.5))
    ((name, attention),) = spatial.items()  # gates are no places
    torch.testing.assert_close(attention[0, 0], maps[name][0, 0, 2 * 8 + 3].view(6, 8))
    dataset = dict(type='CustomDataset', data_prefix=str(tmp_path / 'images'))
    write(tmp_path / 'images/a/0.png', smooth())
    cfg = config(dataset, head=dict(type='LinearClsHead', num_classes=3, in_channels=32))
    cfg.model.backbone = dict(type='AttentionResNet', depth=18, base_channels=4, stem_channels=8,
                              attention=dict(type='SqueezeExcitation'))  # fmt: skip
    files = checkpoint(cfg, tmp_path)
    with pytest.raises(SystemExit, match='one number per channel'):
        vis_attention.main([*files, '--indices', '0', '--out', str(tmp_path / 'out.png')])


DATA_SETS = {
    'list without classes': lambda plain, more: {**plain, 'ann_file': 'list.txt'},
    'concatenated': lambda plain, more: dict(type='ConcatDataset', datasets=[plain, more]),
    'repeated': lambda plain, more: dict(type='RepeatDataset', times=2, dataset=plain),
    'balanced': lambda plain, more: dict(type='ClassBalancedDataset', oversample_thr=0.9, dataset=plain),
    'K-fold': lambda plain, more: dict(type='KFoldDataset', num_splits=2, dataset=plain, test_mode=False),
    'unlabelled': lambda plain, more: {**plain, 'with_label': False},
    'multi-label': lambda plain, more: dict(type='MultiLabelDataset', ann_file='many.json',
                                            data_root=plain['data_root']),
}  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Three images of different sizes in two folders, as a folder, a list and a multi-label file."""
    folder = tmp_path_factory.mktemp('data')
    names = ['a/0.png', 'b/0.png', 'b/1.png']
    for name, height in zip(names, (24, 32, 16)):
        write(folder / name, smooth(height))
    (folder / 'list.txt').write_text(''.join(f'{name} {i}\n' for i, name in enumerate(names)))
    listed = [dict(img_path=name, gt_label=[0, 2][: i + 1] if i < 2 else []) for i, name in enumerate(names)]
    (folder / 'many.json').write_text(json.dumps(dict(metainfo=dict(classes=['x', 'y', 'z']), data_list=listed)))
    return folder


@pytest.mark.parametrize('name', DATA_SETS)
def test_K2_6_every_data_set_works_in_every_tool(folder, tmp_path, name, capsys):
    plain = dict(type='CustomDataset', data_root=str(folder))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    plain['pipeline'] = pipeline
    dataset = DATA_SETS[name](plain, dict(plain))
    head = None
    if name == 'multi-label':
        head = dict(type='MultiLabelLinearClsHead', num_classes=3, in_channels=8)
    cfg = config(head=head)
    if 'type' in dataset and dataset['type'] in ('CustomDataset', 'MultiLabelDataset'):
        dataset['pipeline'] = pipeline
    cfg.test_dataloader.dataset = dataset
    cfg.merge_from_dict(
        dict(
            train_dataloader=cfg.test_dataloader,
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        )
    )
    metric = {'multi-label': [dict(type='MultiLabelMetric')]}.get(name, [dict(type='Accuracy')])
    cfg.test_evaluator = metric
    files = checkpoint(cfg, tmp_path)

    _, loader = load_classifier(*files, split='train')
    expected = {'concatenated': 6, 'K-fold': 2}.get(name, 3)
    assert len(loader.dataset) == expected  # each image once; of K-fold the training part
    if name in ('repeated', 'balanced'):  # for the tools like the concatenated
        return
    vis_attention.main([*files, '--indices', '0', '1', '99', '--out', str(tmp_path / 'maps.svg')])
    out = capsys.readouterr().out
    assert 'there is no [99]' in out and '2 images, 2 maps each' in out
    text = (tmp_path / 'maps.svg').read_text()
    titles = {'list without classes': 'class 0 as class', 'unlabelled': '>class ', 'multi-label': 'x as '}
    assert titles.get(name, 'b as ' if name == 'K-fold' else 'a as ') in text
    if name != 'unlabelled':  # nothing to compare with
        test_tool.main([*files, '--work-dir', str(tmp_path / 'run'), '--tta'])
    pytest.importorskip('pytorch_grad_cam')
    vis_cam.main([*files, str(tmp_path / 'cam.png'), '--indices', '0', '1'])


def test_K2_7_pictures_are_named_by_the_relative_path(net, tmp_path):
    for name in ('a/0.png', 'b/0.png', 'b/0.bmp', 'b/0_2.png', 'c/d/0.png', '.hidden/0.png'):
        write(tmp_path / 'images' / name, smooth())
    names = [result['name'] for result in net(str(tmp_path / 'images'), show_dir=tmp_path / 'shown', layers=[
        'backbone.stage1.attention1.map'])]  # fmt: skip
    assert names == ['a/0', 'b/0', 'b/0_2', 'b/0_2_2', 'c/d/0']
    drawn = {path.relative_to(tmp_path / 'shown').as_posix() for path in (tmp_path / 'shown').rglob('*.png')}
    assert drawn == {f'{name}.stage1.attention1.png' for name in names}
    listed = [str(tmp_path / 'images' / name) for name in ('a/0.png', 'b/0.png')]
    assert [name for name, _ in ImageSources(listed)] == ['a/0', 'b/0']
    unique = UniqueNames()
    assert [unique(name) for name in ('a', 'a', 'a_2', 'a')] == ['a', 'a_2', 'a_2_2', 'a_3']

    files = ['a/0.png', 'b/0.bmp', 'b/0.png', 'b/0_2.png', 'c/d/0.png']
    (tmp_path / 'list.txt').write_text(''.join(f'{name} {i % 3}\n' for i, name in enumerate(files)))
    dataset = dict(type='CustomDataset', data_prefix=str(tmp_path / 'images'), classes=['$1', '猫 $', 'c'],
                   ann_file=str(tmp_path / 'list.txt'))  # fmt: skip
    files = checkpoint(config(dataset), tmp_path)
    test_tool.main([*files, '--work-dir', str(tmp_path / 'run'), '--show-dir', str(tmp_path / 'predicted')])
    drawn = {path.relative_to(tmp_path / 'predicted').as_posix() for path in (tmp_path / 'predicted').rglob('*.png')}
    assert drawn == {'a/0.png', 'b/0.png', 'b/0_2.png', 'b/0_2_2.png', 'c/d/0.png'}


def test_K2_8_names_are_plain_text_in_any_script(tmp_path):
    image = smooth()
    figure = map_grid(image, {'$2': torch.rand(3, 4)}, title='$1 and $\\nothing$')
    figure.savefig(tmp_path / 'formula.svg')  # which Matplotlib's parser of formulas would refuse
    assert figure.axes[0].get_title() == '$1 and $\\nothing$' and not figure.axes[0].title.get_parse_math()
    figure = attention_figure([image], {'a': [torch.rand(3, 4)]}, ['$1 as $2'])
    assert not figure.axes[0].yaxis.label.get_parse_math()
    assert plain_text('Ž Д λ')[0] == 'Ž Д λ'
    text, how = plain_text('猫')
    if text == '猫':  # a font that has it is installed
        assert len(how['family']) > 1
    else:
        assert text == '\\u732b'
    figure = Figure()
    figure.text(0.5, 0.5, text, **how)
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # of glyphs that are missing
        figure.savefig(tmp_path / 'script.png')


@pytest.fixture
def album(tmp_path):
    """Two images among what only looks like images."""
    album = tmp_path / 'album'
    for name in ('good0.png', 'good1.jpg'):
        write(album / name, smooth(40, 48))
    whole = (album / 'good0.png').read_bytes()
    (album / 'half.png').write_bytes(whole[: len(whole) // 2])
    (album / 'postscript.jpg').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n')
    (album / 'album.jpg').mkdir()
    os.mkfifo(album / 'fifo.png')
    (album / 'loop.png').symlink_to(album / 'loop.png')
    (album / 'gone.png').symlink_to(album / 'nowhere.png')
    return album


def test_K2_9_and_K2_16_what_cannot_be_read_is_skipped_counted_and_listed(net, album, monkeypatch):
    said = []
    monkeypatch.setattr('mmresattn.visualization.image_sources.print_log', lambda text, *_, **__: said.append(text))
    results = net(str(album), show_dir=album.parent / 'shown')
    assert [result['name'] for result in results] == ['good0', 'good1']
    assert said[0].startswith('6 of 8 files were skipped:\n')
    for name, why in [('half.png', 'incomplete|truncated|corrupt'), ('postscript.jpg', 'none of the formats'),
                      ('album.jpg', 'it is a folder'), ('fifo.png', 'not a regular file'),
                      ('loop.png', 'symbolic links'), ('gone.png', 'No such file')]:  # fmt: skip
        assert re.search(f'{name} cannot be read as an image: .*({why})', said[0])
    with pytest.raises(BrokenImage, match='album.jpg cannot be read as an image: it is a folder'):
        net(str(album), strict=True)
    with pytest.raises(BrokenImage, match='half.png cannot be read'):  # the only one
        net(str(album / 'half.png'))
    with pytest.raises(BrokenImage, match='2 of 2 files were skipped'):
        net([str(album / 'half.png'), str(album / 'fifo.png')])
    with pytest.raises(BrokenImage, match='is no whole image: it is not a regular file'):  # in training, too
        LoadCheckedImage()(dict(img_path=str(album / 'fifo.png')))


def test_K2_10_photographs_are_resized_to_what_the_network_was_trained_on(net, monkeypatch):
    cfg = Config.fromfile(f'{ROOT}/configs/resattn/attention56_cifar10_fast.py')
    for size in [(32, 32), (300, 400)]:
        image = smooth(*(max(32, side // 8 * 8) for side in size))
        sample = ImagePipeline(cfg)(image, follow=True)
        assert sample.packed['inputs'].shape == (3, 32, 32)
    same = ImagePipeline(cfg)(image[:32, :32]).packed['inputs'].permute(1, 2, 0)
    np.testing.assert_array_equal(same.cpu().numpy(), image[:32, :32])
    # Published weights know the size for configs whose pipeline leaves it open.
    sample = ImagePipeline(config(), (24, 40))(smooth(64, 80), follow=True)
    assert sample.packed['inputs'].shape == (3, 24, 40) and sample.view.scale == (40 / 64, 50 / 80)
    steps = [dict(type='Resize', scale=(48, 48))]
    assert ImagePipeline(config(steps=steps), (24, 40))(smooth()).packed['inputs'].shape == (3, 48, 48)


def test_K2_11_results_stream(net, tmp_path):
    """A video of any length is never in memory, and raw maps are kept only where they are asked for."""
    path = str(tmp_path / 'clip.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 5, (32, 24))
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no videos')
    for _ in range(12):
        writer.write(smooth())
    writer.release()
    read = []
    pipeline, net.pipeline = net.pipeline, lambda *args, **options: read.append(1) or pipeline(*args, **options)
    try:
        stream = net.stream(path, batch_size=3)
        assert not read
        assert next(stream)['name'] == 'clip_000000' and len(read) <= 4
        assert len(list(stream)) == 11
        results = net(path, show_dir=tmp_path / 'shown', batch_size=4)
        assert len(results) == 12 and not any('attention' in result for result in results)
        assert len(list((tmp_path / 'shown').iterdir())) == 24
        assert 'attention' in net(path, attention=True, show_dir=tmp_path / 'shown')[0]
    finally:
        net.pipeline = pipeline


def test_K2_12_models_without_maps_are_named():
    for model in (resnet18(), torch.nn.Sequential(SELayer(8))):
        with pytest.raises(ValueError, match=f'This {type(model).__name__} has no attention maps. Models that have:'):
            with record_attention(model):
                pass
    with record_attention(torch.nn.Linear(1, 1), []) as maps:  # none are wanted
        assert maps == {}


def test_K2_13_one_default_for_reduction(net, capsys, tmp_path):
    from tools.analysis_tools import faithfulness

    assert REDUCTIONS[0] == 'strongest'
    for tool in (vis_attention, faithfulness):
        with pytest.raises(SystemExit):
            tool.parse_args(['--help'])
        assert 'default: strongest' in ' '.join(capsys.readouterr().out.split())
    assert AttentionVisualizationHook().reduction == 'strongest'
    (default,), (mean,) = net(image := smooth(), on_image=True), net(image, on_image=True, reduction='mean')
    for name, raw in default['attention'].items():
        torch.testing.assert_close(default['attention_on_image'][name].std(), reduce_channels(raw[None]).std(),
                                   rtol=0.5, atol=0)  # fmt: skip
        assert not torch.allclose(default['attention_on_image'][name], mean['attention_on_image'][name])


def png_bomb(width, height):
    def chunk(kind, content):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')


def test_K2_14_a_limit_on_pixels_by_the_header(net, tmp_path, monkeypatch):
    (tmp_path / 'bomb.png').write_bytes(png_bomb(30_000, 30_000))
    decoded = []
    monkeypatch.setattr('mmcv.imfrombytes', lambda *args, **options: decoded.append(args))
    for read in (lambda path: LoadCheckedImage()(dict(img_path=path)), net):
        with pytest.raises(BrokenImage, match='30000 x 30000 pixels exceed the limit of 100,000,000.*MMRESATTN_MAX'):
            read(str(tmp_path / 'bomb.png'))
    assert not decoded
    monkeypatch.setenv('MMRESATTN_MAX_PIXELS', '1000')
    small = cv2.imencode('.png', smooth(24, 48))[1].tobytes()
    with pytest.raises(BrokenImage, match='48 x 24 pixels exceed the limit of 1,000'):
        check_image(small)


def test_K2_15_only_listed_formats_are_decoded(net, tmp_path, monkeypatch):
    """PostScript would start Ghostscript."""
    started = []
    monkeypatch.setattr('PIL.EpsImagePlugin.Ghostscript', lambda *args, **options: started.append(args))
    monkeypatch.setattr('PIL.EpsImagePlugin.has_ghostscript', lambda: True)
    eps = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n'
    (tmp_path / 'x.jpg').write_bytes(eps)
    for read in (lambda path: LoadCheckedImage()(dict(img_path=path)), net):
        with pytest.raises(BrokenImage, match='it has none of the formats JPEG, PNG, BMP, GIF, TIFF, WEBP, PPM'):
            read(str(tmp_path / 'x.jpg'))
    assert not started
    with Image.open(tmp_path / 'x.jpg') as image:  # so the test can fail
        try:
            image.load()
        except Exception:
            pass
    assert started
    for kind, save in [('PNG', {}), ('JPEG', {}), ('BMP', {}), ('GIF', {}), ('TIFF', {}), ('WEBP', {}), ('PPM', {})]:
        path = tmp_path / f'whole.{kind.lower()}'
        Image.fromarray(smooth()).save(path, kind, **save)
        check_image(path.read_bytes())
    five = tmp_path / 'five.tif'  # which Pillow does not know, and other decoders do
    assert cv2.imwritemulti(str(five), [smooth(channels=1)] * 2)
    check_image(five.read_bytes())


def test_maps_leave_their_device_before_they_become_arrays():
    """No call of ``numpy()`` without ``cpu()`` before it, as tensors of accelerators refuse it."""
    found = []
    for path in [*ROOT.glob('mmresattn/**/*.py'), *ROOT.glob('tools/**/*.py')]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r'(?<!\.cpu\(\))\.numpy\(', line) and '.cpu()' not in line.split('.numpy(')[0]:
                found.append(f'{path.relative_to(ROOT)}:{number}')
    assert not found


def test_nobody_else_reads_or_draws():
    """The road has one owner: its callers decode no image file and write no figure by themselves."""
    callers = ['mmresattn/apis/attention_inferencer.py', 'mmresattn/editor/session.py',
               'mmresattn/engine/attention_visualization_hook.py', 'mmresattn/engine/prediction_pictures_hook.py',
               'tools/visualization/vis_attention.py', 'tools/visualization/vis_cam.py',
               'tools/analysis_tools/faithfulness.py']  # fmt: skip
    for name in callers:
        text = (ROOT / name).read_text()
        assert not re.search(r'imread|imfrombytes|Image\.open|savefig|VideoCapture|colormaps', text), name
