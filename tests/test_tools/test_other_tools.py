import hashlib
import re

import mmengine
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.test_tools.test_train import finish, start


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A tiny network after one epoch, and the options that its config needs."""
    work_dir = tmp_path_factory.mktemp('work')
    config = work_dir / 'tiny.py'
    config.write_text(
        f"_base_ = '{ROOT}/configs/resattn/attention56_digits.py'\n"
        "model = dict(backbone=dict(arch=dict(_delete_=True, base='attention56-cifar', channels=(8, 8, 8))),\n"
        '             head=dict(in_channels=8))\n'
    )
    finish(start(config, '--work-dir', work_dir, '--no-validate', '--cfg-options', 'train_cfg.max_epochs=1'))
    return config, work_dir / 'epoch_1.pth'


def test_test_gives_metrics_and_predictions(python, trained, tmp_path):
    metrics, predictions = tmp_path / 'metrics.json', tmp_path / 'predictions.pkl'
    done = python('tools/test.py', *trained, '--work-dir', tmp_path, '--out', metrics, '--out-item', 'metrics')
    assert done.returncode == 0, done.stderr[-2000:]
    accuracy = mmengine.load(metrics)['accuracy/top1']
    done = python('tools/test.py', *trained, '--work-dir', tmp_path, '--out', predictions)
    assert done.returncode == 0, done.stderr[-2000:]
    predicted = mmengine.load(predictions)
    assert len(predicted) == 360
    right = np.mean([sample['pred_label'].item() == sample['gt_label'].item() for sample in predicted])
    assert 100 * right == pytest.approx(accuracy, abs=1e-3) and accuracy > 5


def test_published_weights_give_the_same_accuracy(python, trained, tmp_path):
    """In half precision, by a config with averaged weights."""
    config, checkpoint = trained
    weights = tmp_path / 'new' / 'tiny.safetensors'
    done = python('tools/model_converters/publish_weights.py', config, checkpoint, weights)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f'{hashlib.sha256(weights.read_bytes()).hexdigest()}  tiny.safetensors\n' in done.stdout
    assert weights.stat().st_size < 0.4 * checkpoint.stat().st_size
    accuracies = []
    for i, file in enumerate((checkpoint, weights)):
        out = ['--out', tmp_path / f'{i}.json', '--out-item', 'metrics']
        done = python('tools/test.py', config, file, '--work-dir', tmp_path, *out)
        assert done.returncode == 0, done.stderr[-2000:]
        accuracies.append(mmengine.load(tmp_path / f'{i}.json')['accuracy/top1'])
    assert accuracies[1] == pytest.approx(accuracies[0], abs=1)  # of 360 images at most 3


def test_test_draws(python, trained, tmp_path):
    shown = tmp_path / 'shown'
    done = python('tools/test.py', *trained, '--work-dir', tmp_path, '--show-dir', shown, '--interval', 100)
    assert done.returncode == 0, done.stderr[-2000:]
    pictures = [np.asarray(Image.open(path)) for path in shown.rglob('*.png')]
    assert len(pictures) >= 3 and all(picture.std() > 10 for picture in pictures)


def test_test_averages_over_mirrored_images(python, trained, tmp_path):
    done = python('tools/test.py', *trained, '--work-dir', tmp_path, '--tta')
    assert done.returncode == 0 and 'accuracy/top1' in done.stderr + done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['none.pth'], 'no checkpoint none.pth'),
        (['none.pth', '--out-item', 'pred'], '--out-item needs --out'),
        (['none.pth', '--out', 'predictions.json'], 'must end in .pkl'),
        (['none.pth', '--tta', '--show'], 'leave out --show'),
    ],
)
def test_test_says_what_is_wrong(python, args, message):
    done = python('tools/test.py', 'configs/resattn/attention56_digits.py', *args)
    assert done.returncode != 0 and message in done.stderr


def test_get_flops_prints_both_counts(python):
    done = python('tools/analysis_tools/get_flops.py', 'configs/resattn/attention56_imagenet.py')
    assert done.returncode == 0, done.stderr[-2000:]
    parameters, papers, mmengines = (int(n.replace(',', '')) for n in re.findall(r'([\d,]{5,})\n', done.stdout))
    assert (parameters, papers) == (31_810_728, 6_270_836_736)
    assert 'as in papers' in done.stdout and papers < mmengines < 1.1 * papers
    done = python('tools/analysis_tools/get_flops.py', 'configs/resattn/attention56_imagenet.py', '--shape', 64, 32)
    assert 'one image of 64x32' in done.stdout


def test_attention_is_drawn(python, trained, tmp_path):
    out = tmp_path / 'attention.png'
    done = python('tools/visualization/draw_attention.py', *trained, out, '--indices', 0, 5)
    assert done.returncode == 0 and '2 images, 3 maps each' in done.stdout, done.stderr[-2000:]
    assert np.asarray(Image.open(out)).std() > 10
