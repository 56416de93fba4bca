import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from sklearn.datasets import load_digits

from mmresattn.apis import build_runner, load_classifier
from tests.conftest import ROOT

WEIGHTS = ROOT / 'weights'
# Name, which is that of its config; accuracy on CIFAR-10's test images; logits of the first of scikit-learn's digits.
PUBLISHED = [
    (
        'attention56_cifar10_long',
        92.31,
        [-0.1043, -0.3690, 0.0278, 0.7611, -0.6182, 0.0751, -0.3797, 0.1233, 0.0940, 0.0820],
    ),
    (
        'attention56_cifar10_fast',
        91.22,
        [-0.3652, -0.4890, 0.0385, 0.8634, -0.4567, 0.3519, -0.7109, 0.7516, -0.2296, -0.1825],
    ),
]


CLOTHING = 'clothing_abn_efficientnet-lite0'  # see test_clothing.py


def test_files_are_small_and_what_their_sums_say():
    sums = dict(reversed(line.split()) for line in (WEIGHTS / 'SHA256SUMS').read_text().splitlines())
    files = {path.name: path for path in WEIGHTS.glob('*.safetensors')}
    assert (
        files.keys() == sums.keys() == {f'{name}.safetensors' for name in (*(name for name, *_ in PUBLISHED), CLOTHING)}
    )
    for name, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[name]
        assert path.stat().st_size <= (12 if name.startswith(CLOTHING) else 4) * 2**20


@pytest.mark.parametrize(('name', 'accuracy', 'logits'), PUBLISHED)
def test_a_digit_gives_the_same_logits(name, accuracy, logits, tmp_path, monkeypatch):
    for split in ('train', 'test'):
        (tmp_path / f'cifar10/{split}/class').mkdir(parents=True)
    (tmp_path / 'cifar10/test/class/0.png').touch()
    monkeypatch.setenv('MMRESATTN_DATA', str(tmp_path))
    model, _ = load_classifier(str(ROOT / f'configs/resattn/{name}.py'), str(WEIGHTS / f'{name}.safetensors'))
    digit = np.kron(load_digits().images[0] * 15, np.ones((4, 4)))  # 32x32, 0 to 240
    image = torch.tensor(digit, dtype=torch.uint8).expand(1, 3, -1, -1).to(next(model.parameters()).device)
    with torch.no_grad():
        scores = model(model.data_preprocessor(dict(inputs=image))['inputs'], mode='tensor')[0]
    assert scores.tolist() == pytest.approx(logits, abs=2e-3)


@pytest.mark.parametrize(('name', 'accuracy', 'logits'), PUBLISHED)
def test_accuracy_on_every_tenth_image_is_the_stated_one(name, accuracy, logits, tmp_path):
    data = Path(os.environ.get('MMRESATTN_DATA', 'data'))
    found = len(list((data / 'cifar10/test').glob('*/*')))
    if found != 10_000:
        pytest.skip(f'{data}/cifar10/test has {found} of 10,000 images; MMRESATTN_DATA names the folder of cifar10/')
    cfg = Config.fromfile(ROOT / f'configs/resattn/{name}.py')
    cfg.merge_from_dict(dict(work_dir=str(tmp_path), load_from=str(WEIGHTS / f'{name}.safetensors'), launcher='none'))
    cfg.test_dataloader.dataset.indices = range(0, 10_000, 10)  # tools/test.py takes all, in ten times as long
    metrics = build_runner(cfg, ['test_dataloader']).test()
    deviation = (accuracy * (100 - accuracy) / 1_000) ** 0.5  # of the accuracy on a thousand images
    assert metrics['accuracy/top1'] == pytest.approx(accuracy, abs=3 * deviation)
    stated = re.search(rf'\[{name}\].*?\| ([\d.]+) % \| ([\d.]+) %', (WEIGHTS / 'README.md').read_text())
    assert float(stated[2]) == accuracy == pytest.approx(100 - float(stated[1]))
