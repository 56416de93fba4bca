import csv
import json
import os
import re
import signal
import time
import zipfile

import experiments
import numpy as np
import pytest
from experiments import CONFIGS, TABLES, Results, Row, check_settings, locked, ranks
from PIL import Image
from sklearn.datasets import load_digits

from tests.conftest import Script

IMAGES = dict(cifar10=dict(train=50_000, test=10_000), cifar100=dict(train=0, test=0))
SETTINGS = dict(scale='full', iterations=160_000, seeds=[0, 1], images=IMAGES, amp=False, data='data')


def test_tables_hold_the_papers_figures_and_configs_that_are_there():
    errors = {row.name: row.paper for _, rows in TABLES.values() for row in rows}
    assert errors['Attention-164, naive attention learning'] == 7.18 and errors['Attention-452, CIFAR-10'] == 3.90
    assert [len(rows) for _, rows in TABLES.values()] == [3, 8, 3, 8, 14]
    for row in (row for _, rows in TABLES.values() for row in rows if row.config):
        docstring = (CONFIGS / f'{row.config}.py').read_text()
        stated = re.search(r'Paper: ([\d.]+) % error', docstring)
        assert float(stated[1]) == row.paper, row.config


ROWS = [Row('a', 5.5, 'a'), Row('b', 6.1, 'b'), Row('c', 4.2, None), Row('d, CIFAR-100', 20.1, 'd')]
ERRORS = {('a', 0): 7.0, ('a', 1): 8.0, ('b', 0): 6.5}


def markdown(monkeypatch, tmp_path, errors, failures=(), **changes):
    monkeypatch.setitem(TABLES, 1, ('Title', ROWS))
    results = Results(1, {**SETTINGS, **changes}, tmp_path)
    results.errors, results.failures = errors, dict(failures)
    return results.markdown()


def test_the_papers_figures_stand_beside_those_of_its_own_training_alone(monkeypatch, tmp_path):
    errors = {**ERRORS, ('d', 0): 25.0}
    whole = markdown(monkeypatch, tmp_path, errors, dict(b='out | of memory'))
    assert '| a | 7.50 ± 0.50 | 2 | 5.50 |  |' in whole
    assert '| b | 6.50 | 1 | 6.10 | 1 of 2 seeds; out   of memory |' in whole
    assert '| c | - | - | 4.20 | not part of this package |' in whole
    assert '| d, CIFAR-100 | 25.00 | 1 | order 1 |' in whole  # which has no images here
    assert 'full, 160,000 iterations' in whole and 'cifar10 of 50,000 + 10,000 images' in whole
    assert 'Seeds: 0, 1' in whole
    subset = {**IMAGES, 'cifar10': dict(train=50_000, test=2_000)}
    for changes in (dict(iterations=1_560), dict(images=subset)):
        short = markdown(monkeypatch, tmp_path, errors, **changes)
        assert '| a | 7.50 ± 0.50 | 2 | order 1 |  |' in short and '5.50' not in short
        assert '| c | - | - | order - |' in short


def test_orders_are_those_of_the_rows_that_were_run_of_each_data_set():
    assert ranks(ROWS, [0.3, None, 0.1, 0.7]) == ['2', '-', '1', '1']
    assert ranks(ROWS, [0.3, 0.3, 0.4, None]) == ['1', '1', '3', '-']


def test_both_files_say_the_same_and_from_what_they_are(monkeypatch, tmp_path):
    monkeypatch.setitem(TABLES, 1, ('Title', ROWS))
    results = Results(1, SETTINGS, tmp_path)
    for (config, seed), error in ERRORS.items():
        folder = results.run_dir(config, seed)
        folder.mkdir(parents=True)
        (folder / 'metrics.json').write_text('{"accuracy/top1": %s}' % (100 - error))
    results.collect()
    assert results.errors == ERRORS
    out = results.save()
    assert '| a | 7.50 ± 0.50 |' in (out / 'table.md').read_text()
    rows = list(csv.DictReader(open(out / 'results.csv')))
    assert [(row['row'], row['seed'], row['error']) for row in rows] == [
        ('a', '0', '7.00'), ('a', '1', '8.00'), ('b', '0', '6.50'), ('b', '1', ''),
        ('c', '', ''), ('d, CIFAR-100', '0', ''), ('d, CIFAR-100', '1', ''),
    ]  # fmt: skip
    about = dict(table='1', scale='full', iterations='160000', amp='False', data='data')
    assert all(row.items() >= about.items() for row in rows)
    assert [rows[i]['training_images'] for i in (0, -1)] == ['50000', '0'] and rows[0]['paper'] == '5.5'


def test_a_last_checkpoint_that_is_not_whole_is_written_again(monkeypatch, tmp_path):
    started = []

    def process(command, *args):
        started.append(command[0])
        if command[0] == 'tools/test.py':
            (tmp_path / 'test').mkdir(exist_ok=True)
            (tmp_path / 'test/metrics.json').write_text('{"accuracy/top1": 90.0}')

    monkeypatch.setattr(experiments, 'process', process)
    for content, expected in (
        (None, ['tools/train.py', 'tools/test.py']),
        (b'half', ['tools/train.py', 'tools/test.py']),
    ):
        if content:
            (tmp_path / 'iter_160000.pth').write_bytes(content)
        experiments.run(tmp_path / 'config.py', tmp_path, 0, SETTINGS, None)
        assert started == expected and experiments.finished(tmp_path) == 10
        started.clear()
    with zipfile.ZipFile(tmp_path / 'iter_160000.pth', 'w') as whole:
        whole.writestr('data', 'weights')
    experiments.run(tmp_path / 'config.py', tmp_path, 0, SETTINGS, None)
    assert started == ['tools/test.py']


def test_runs_of_other_settings_are_not_taken_for_these(tmp_path):
    check_settings(tmp_path, SETTINGS)
    check_settings(tmp_path, {**SETTINGS, 'seeds': [7]})
    for change in (dict(iterations=5), dict(data='other'), dict(images={})):
        with pytest.raises(ValueError, match="'iterations': 160000.*another --work-dir"):
            check_settings(tmp_path, {**SETTINGS, **change})


@pytest.fixture
def data(tmp_path):
    """Digits in the place and the size of CIFAR-10."""
    digits = load_digits()
    for split, chosen in (('train', slice(0, 200)), ('test', slice(200, 260))):
        for i, (image, label) in enumerate(zip(digits.images[chosen], digits.target[chosen])):
            folder = tmp_path / f'data/cifar10/{split}/{label}'
            folder.mkdir(parents=True, exist_ok=True)
            grey = Image.fromarray((image * 15).astype(np.uint8)).resize((32, 32))
            grey.convert('RGB').save(folder / f'{i}.png')
    return tmp_path / 'data'


def start(data, work_dir, rows='attention56_c*'):
    """Two rows of table 1."""
    return Script('.dev_scripts/experiments.py', 1, '--rows', rows, '--iterations', 5, '--seeds', 0, '--data', data,
                  '--work-dir', work_dir, COLUMNS='300')  # fmt: skip


def test_rows_are_resumed_skipped_and_fail_alone(data, tmp_path):
    work = tmp_path / 'work'
    mixed, channel = (work / f'attention56_{name}cifar10' for name in ('', 'channel_'))
    work.mkdir()
    channel.write_text('in the way')
    killed = start(data, work)
    while not (mixed / 'seed0/iter_2.pth').exists():
        assert killed.process.is_alive(), killed.output[-3000:]
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)  # its training lives on
    killed.wait()
    with pytest.raises(RuntimeError, match='another process'), locked(mixed / 'seed0'):
        pass
    os.killpg(killed.pid, signal.SIGKILL)
    assert not (mixed / 'seed0/metrics.json').exists()

    again = start(data, work)
    assert again.wait() == 1, again.output[-3000:]
    assert 'channel_cifar10, seed 0 failed' in again.output
    assert re.search(r'resumed epoch: 0, iter: [1-9]', (mixed / 'seed0/train.log').read_text())
    table = (work / 'table1/table.md').read_text()
    assert re.search(r'\| mixed attention \(f1\) \| [\d.]+ \| 1 \| order 1 \|  \|', table)
    assert re.search(
        r'\| channel attention \(f2\) \| - \| - \| order - \| 0 of 1 seeds; .*(Not a directory|File exists)', table
    )

    before = (mixed / 'seed0/train.log').read_text()
    start(data, work, 'attention56_cifar10').finish()
    assert (mixed / 'seed0/train.log').read_text() == before
    rows = list(csv.DictReader(open(work / 'table1/results.csv')))
    errors = {row['config'].split('/')[-1]: row['error'] for row in rows}
    assert list(errors) == ['attention56_cifar10', 'attention56_channel_cifar10', 'attention56_spatial_cifar10']
    tested = json.loads((mixed / 'seed0/metrics.json').read_text())['accuracy/top1']
    assert float(errors['attention56_cifar10']) == pytest.approx(100 - tested, abs=0.01)
    assert not any(list(errors.values())[1:])
    assert {(row['training_images'], row['test_images'], row['scale']) for row in rows} == {('200', '60', 'custom')}


def test_data_that_is_not_there(python, tmp_path):
    done = python('.dev_scripts/experiments.py', '3', '--data', tmp_path, '--work-dir', tmp_path / 'work')
    assert done.returncode and re.search('cifar10/train holds no images. Give --data', done.stderr)
    assert not (tmp_path / 'work').exists()


def test_rows_that_are_not_there(python, data, tmp_path):
    done = python('.dev_scripts/experiments.py', 1, '--data', data, '--rows', 'attention56_f4*', '--work-dir', tmp_path)
    assert done.returncode and re.search(r"\['attention56_f4\*'\]: no config of table 1; it has", done.stderr)
