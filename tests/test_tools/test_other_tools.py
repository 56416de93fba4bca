import hashlib
import re
import time
from pathlib import Path

import data_time
import mmengine
import numpy as np
import pytest
import resume_time
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmpretrain.registry import TRANSFORMS
from mmpretrain.visualization import UniversalVisualizer
from PIL import Image
from safetensors.torch import load_file

from mmresattn.apis import load_classifier
from mmresattn.utils import count_multiply_adds
from tests.conftest import ROOT
from tools import test as test_tool
from tools import train as train_tool
from tools.analysis_tools import get_flops
from tools.model_converters import publish_weights


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A tiny network after one epoch: config and checkpoint."""
    work_dir = tmp_path_factory.mktemp('work')
    config = work_dir / 'tiny.py'
    config.write_text(
        f"_base_ = '{ROOT}/configs/resattn/attention56_digits.py'\n"
        "arch = dict(base='attention56-cifar', channels=(8, 8, 8), modules=(1, 1, 0),\n"
        '            units_after=(0, 0, 0), poolings=(1, 1, 1), t=1, bottom_units=1)\n'
        'model = dict(backbone=dict(arch=dict(arch, _delete_=True)),\n'
        '             head=dict(in_channels=8))\n'
    )
    train_tool.main(
        [str(config), '--work-dir', str(work_dir), '--no-validate', '--cfg-options', 'train_cfg.max_epochs=1']
    )
    return str(config), str(work_dir / 'epoch_1.pth')


def accuracy(config, checkpoint, out):
    out = str(out / 'metrics.json')
    test_tool.main([config, str(checkpoint), '--work-dir', f'{out}.d', '--out', out, '--out-item', 'metrics'])
    return mmengine.load(out)['accuracy/top1']


def test_test_gives_metrics_and_predictions(trained, tmp_path):
    stated = accuracy(*trained, tmp_path)
    test_tool.main([*trained, '--work-dir', str(tmp_path), '--out', str(tmp_path / 'predictions.pkl')])
    predicted = mmengine.load(tmp_path / 'predictions.pkl')
    assert len(predicted) == 360
    right = np.mean([sample['pred_label'].item() == sample['gt_label'].item() for sample in predicted])
    assert 100 * right == pytest.approx(stated, abs=1e-3) and stated > 5


def test_published_weights_give_the_same_accuracy(trained, tmp_path, capsys):
    """In half precision, by a config with averaged weights."""
    config, checkpoint = trained
    weights = tmp_path / 'new' / 'tiny.safetensors'
    publish_weights.main([config, checkpoint, str(weights)])
    assert f'{hashlib.sha256(weights.read_bytes()).hexdigest()}  tiny.safetensors\n' in capsys.readouterr().out
    published = load_file(weights).values()
    assert {value.dtype for value in published if value.is_floating_point()} == {torch.float16}
    # Of 360 images at most 3.
    assert accuracy(config, weights, tmp_path) == pytest.approx(accuracy(config, checkpoint, tmp_path), abs=1)


def test_test_draws(trained, tmp_path, monkeypatch):
    drawn, draw = {}, UniversalVisualizer.visualize_cls

    def record(self, image, *args, **kwargs):
        picture = draw(self, image, *args, **kwargs)
        drawn[Path(kwargs['out_file']).name] = image, picture
        return picture

    monkeypatch.setattr(UniversalVisualizer, 'visualize_cls', record)
    test_tool.main([*trained, '--work-dir', str(tmp_path), '--show-dir', str(tmp_path / 'shown'), '--interval', '100'])
    files = {path.name: path for path in (tmp_path / 'shown').rglob('*.png')}
    assert files.keys() == drawn.keys() == {'0.png', '100.png', '200.png', '300.png'}
    dataset = load_classifier(*trained)[1].dataset
    for name, (image, picture) in drawn.items():
        assert np.array_equal(image, dataset[int(files[name].stem)]['inputs'].permute(1, 2, 0))
        assert np.array_equal(Image.open(files[name]), picture)


def test_test_averages_over_mirrored_images(trained, tmp_path, capsys):
    test_tool.main([*trained, '--work-dir', str(tmp_path), '--tta'])
    assert 'accuracy/top1' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('args', 'error', 'message'),
    [
        (['none.pth'], FileNotFoundError, 'no checkpoint none.pth'),
        (['none.pth', '--out-item', 'pred'], SystemExit, '--out-item needs --out'),
        (['none.pth', '--out', 'predictions.json'], SystemExit, 'must end in .pkl'),
        (['none.pth', '--tta', '--show'], SystemExit, 'leave out --show'),
    ],
)
def test_test_says_what_is_wrong(tmp_path, capsys, args, error, message):
    with pytest.raises(error) as raised:
        test_tool.main([f'{ROOT}/configs/resattn/attention56_digits.py', '--work-dir', str(tmp_path), *args])
    assert message in f'{raised.value}{capsys.readouterr().err}'


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        ('resattn/attention56_imagenet', [31_810_728, 6_270_836_736]),
        ('compare/nonlocal-wrn16-2_cifar10', [700_090, 107_398_400]),  # as in its metafile
    ],
)
def test_findings_K5_1_get_flops(config, expected, capsys):
    config = f'{ROOT}/configs/{config}.py'
    get_flops.main([config])
    out = capsys.readouterr().out
    assert [int(n.replace(',', '')) for n in re.findall(r'([\d,]{5,})\n', out)] == expected
    get_flops.main([config, '--shape', '64', '32'])
    assert 'one image of 64x32' in capsys.readouterr().out


def test_get_flops_of_a_detector_counts_backbone_and_neck(capsys):
    pytest.importorskip('mmdet')
    config = f'{ROOT}/configs/detection/faster-rcnn_attention56-cifar_fpn_bccd.py'
    backbone = dict(Config.fromfile(config).model.backbone, init_cfg=None)
    with torch.device('meta'):
        counted = count_multiply_adds(MODELS.build(backbone), torch.empty(1, 3, 144, 192))
    for channels, stride in ((64, 2), (128, 4), (256, 8)):  # a 1x1 and a 3x3 convolution for each level of the FPN
        counted += (channels + 9 * 64) * 64 * (144 // stride) * (192 // stride)
    get_flops.main([config])
    out = capsys.readouterr().out
    assert 'one image of 144x192' in out and f'{counted:,}' in out
    assert re.search(r'Not counted.*: rpn_head \([\d,]+ parameters\), roi_head \([\d,]+ parameters\)\n', out)


def test_get_flops_of_a_segmenter_is_at_its_crop(capsys):
    pytest.importorskip('mmseg')
    get_flops.main([f'{ROOT}/configs/segmentation/upernet_attention56-cifar_1xb4-1200_dsb2018-128x128.py'])
    out = capsys.readouterr().out
    assert 'one image of 128x128' in out and re.search(r'Not counted.*training alone: auxiliary_head', out)


@TRANSFORMS.register_module(force=True)
class SlowOfTest:
    def __call__(self, results):
        time.sleep(0.01)
        return results


def test_the_wait_for_data_is_seen(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '120')
    base = f"_base_ = '{ROOT}/configs/_base_/datasets/digits_bs32.py'\n"
    for name, slow in (('quick', ''), ('slow', "dict(type='SlowOfTest'), ")):
        (tmp_path / f'{name}.py').write_text(
            f"{base}pipeline = [{slow}dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]\n"
            'train_dataloader = dict(\n'
            '    batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(pipeline=pipeline))\n'
        )
    data = [str(tmp_path / f'{name}.py') for name in ('quick', 'slow')]
    work_dir = ['--work-dir', str(tmp_path)]
    data_time.main([trained[0], '--data', *data, '--iterations', '2', '--rounds', '1', *work_dir])
    quick, slow = re.findall(
        r'(?:quick|slow) +│ +([\d.]+) ms │ +(\d+) ms │ +([\d.]+)% │ +([\d,]+)', capsys.readouterr().out
    )
    assert float(quick[0]) < 80 <= float(slow[0]) <= float(slow[1]) + 1
    assert float(quick[2]) < float(slow[2]) < 100
    assert float(slow[3]) <= 100 < float(quick[3].replace(',', ''))  # 10 ms an image


def test_a_late_iteration_is_resumed(trained, tmp_path, capsys):
    config = tmp_path / 'iterations.py'
    config.write_text(
        f"_base_ = '{trained[0]}'\n"
        "train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=10)\n"
        'train_dataloader = dict(sampler=dict(infinite=True))\n'
        'log_processor = dict(by_epoch=False)\n'
    )
    resume_time.main([str(config), '--iteration', '3000', '--work-dir', str(tmp_path)])
    out = capsys.readouterr().out
    begin, end = re.search(r'Resumed at iteration 3,000: ([\d.]+) s .*, ([\d.]+) s to its end', out).groups()
    assert 'resumed epoch: 0, iter: 3000' in out and 0 <= float(begin) <= float(end)
