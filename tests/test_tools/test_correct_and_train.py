import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tools import correct_and_train


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """Digits in the place and the size of CIFAR-10."""
    images, labels = load_digits(return_X_y=True)
    for i, (image, label) in enumerate(zip(images[:150], labels)):
        file = tmp_path / 'data/cifar10' / ('train' if i < 100 else 'test') / str(label) / f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), cv2.resize(image.reshape(8, 8).astype(np.float32) * 15, (32, 32)))
    monkeypatch.setenv('MMRESATTN_DATA', str(tmp_path / 'data'))


@pytest.mark.parametrize(
    ('name', 'narrow'), [('digits', dict(base_channels=8)), ('cifar10', dict(depth=10, widen_factor=1))]
)
def test_one_network_goes_on_with_and_without_maps(name, narrow, cifar10, tmp_path, monkeypatch, capsys):
    example = correct_and_train.EXAMPLES[name]
    example = replace(example, backbone={**example.backbone, **narrow}, batch_size=16, epochs=1, epochs_on=1)

    def prepare(folder):
        example.prepare(folder)
        files = sorted(folder.glob('*/*/*'))
        for file in set(files) - set(files[:: len(files) // 150]):
            file.unlink()

    monkeypatch.setitem(correct_and_train.EXAMPLES, name, replace(example, prepare=prepare))
    args = [name, '--seeds', '3', '--work-dir', str(tmp_path / 'work')]
    correct_and_train.main(args)
    table = capsys.readouterr().out.splitlines()[-6:]

    images, run = tmp_path / 'work' / name / 'images', tmp_path / 'work' / name / 'weight1_seed3'
    sets = {part: {file.name for file in images.glob(f'{part}/*/*')} for part in ('train', 'edit', 'test', 'both')}
    assert sets['both'] == sets['train'] | sets['edit'] and not sets['train'] & sets['edit']
    assert not sets['test'] & sets['both'] and min(map(len, sets.values())) > 7
    result = json.loads((run / 'result.json').read_text())
    maps = list((run / 'corrections/maps/neck.map').rglob('*.*'))
    assert len(maps) == result['edited'] > result['mended'] and result['of'] == len(sets['edit'])
    gain = result['corrected'] - result['control']
    assert f'| 3 | {result["edited"]} of {result["of"]} |' in table[2]
    assert float(re.search(r'against without: ([-+][\d.]+) points', table[-1])[1]) == pytest.approx(gain, abs=0.006)

    before, control, corrected = (
        torch.load(run / arm / 'epoch_1.pth', weights_only=True)['state_dict'] for arm in correct_and_train.ARMS
    )
    for key, value in before.items():  # the extractor is frozen; the maps change what follows
        same = key.startswith('backbone.')
        assert torch.equal(value, control[key]) == torch.equal(value, corrected[key]) == same
    assert any(not torch.equal(control[key], corrected[key]) for key in before)

    monkeypatch.setattr(correct_and_train, 'one_seed', None)  # what is done is read
    correct_and_train.main(args)
    assert capsys.readouterr().out.splitlines()[-6:] == table
