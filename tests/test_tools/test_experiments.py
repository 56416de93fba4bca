import csv
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.conftest import ROOT, environment
from tools.experiments import CONFIGS, TABLES, Row, check_settings, ranks, report

SETTINGS = dict(scale='full', iterations=160_000, seeds=[0, 1], images=50_000, amp=False, data='data')


def test_tables_hold_the_papers_figures_and_configs_that_are_there():
    errors = {row.name: row.paper for _, rows in TABLES.values() for row in rows}
    assert errors['Attention-164, naive attention learning'] == 7.18 and errors['Attention-452, CIFAR-10'] == 3.90
    assert [len(rows) for _, rows in TABLES.values()] == [3, 8, 3, 8, 14]
    for row in (row for _, rows in TABLES.values() for row in rows if row.config):
        docstring = (CONFIGS / f'{row.config}.py').read_text()
        stated = re.search(r'Paper: ([\d.]+) % error', docstring)
        assert float(stated[1]) == row.paper, row.config


ROWS = [Row('a', 5.5, 'a'), Row('b', 6.1, 'b'), Row('c', 4.2, None)]


def test_the_papers_figures_stand_beside_those_of_its_own_training_alone():
    errors = {('a', 0): 7.0, ('a', 1): 8.0, ('b', 0): 6.5}
    whole = report(1, ROWS, errors, {'b': 'out | of memory'}, SETTINGS)
    assert '| a | 7.50 ± 0.50 | 2 | 5.50 |  |' in whole
    assert '| b | 6.50 | 1 | 6.10 | 1 of 2 seeds; out   of memory |' in whole
    assert '| c | - | - | 4.20 | not part of this package |' in whole
    assert 'full, 160,000 iterations' in whole and '50,000 training images' in whole and 'Seeds: 0, 1' in whole
    for change in (dict(iterations=1_560), dict(images=10_000)):
        short = report(1, ROWS, errors, {}, {**SETTINGS, **change})
        assert '| a | 7.50 ± 0.50 | 2 | 2 |  |' in short and '5.50' not in short and 'order in the paper' in short


def test_ranks():
    assert ranks([0.3, None, 0.1, 0.3]) == ['2', '-', '1', '2']


def test_runs_of_other_settings_are_not_taken_for_these(tmp_path):
    check_settings(tmp_path, SETTINGS)
    check_settings(tmp_path, {**SETTINGS, 'seeds': [7]})
    with pytest.raises(ValueError, match="'iterations': 160000.*'iterations': 5.*another --work-dir"):
        check_settings(tmp_path, {**SETTINGS, 'iterations': 5})


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


def start(data, work_dir):
    """Two rows of table 1."""
    return subprocess.Popen(
        [sys.executable, 'tools/experiments.py', '1', '--rows', 'attention56_c', '--iterations', '10', '--seeds', '0']
        + ['--data', data, '--work-dir', work_dir],
        cwd=ROOT,
        env=environment(COLUMNS='300'),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_rows_are_resumed_skipped_and_fail_alone(data, tmp_path):
    work = tmp_path / 'work'
    mixed, channel = (work / f'attention56_{name}cifar10' for name in ('', 'channel_'))
    work.mkdir()
    channel.write_text('in the way')
    killed = start(data, work)
    while not (mixed / 'seed0/iter_2.pth').exists():
        assert killed.poll() is None, killed.communicate()[0][-3000:]
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (mixed / 'seed0/metrics.json').exists()

    process = start(data, work)
    output, _ = process.communicate()
    assert process.returncode == 1, output[-3000:]
    assert 'channel_cifar10, seed 0 failed' in output
    assert re.search(r'resumed epoch: 0, iter: [1-9]', (mixed / 'seed0/train.log').read_text())
    table = (work / 'table1/table.md').read_text()
    assert re.search(r'\| mixed attention \(f1\) \| [\d.]+ \| 1 \| 1 \|  \|', table)
    assert re.search(r'\| channel attention \(f2\) \| - \| - \| 2 \| 0 of 1 seeds; .*Not a directory', table)

    channel.unlink()
    before = (mixed / 'seed0/train.log').read_text()
    process = start(data, work)
    output, _ = process.communicate()
    assert process.returncode == 0, output[-3000:]
    assert (mixed / 'seed0/train.log').read_text() == before
    rows = list(csv.DictReader(open(work / 'table1/results.csv')))
    assert [row['config'].split('/')[-1] for row in rows] == ['attention56_cifar10', 'attention56_channel_cifar10']
    assert all(0 <= float(row['error']) <= 100 and row['training_images'] == '200' for row in rows)


def test_data_that_is_not_there(python, tmp_path):
    done = python('tools/experiments.py', '3', '--data', tmp_path, '--work-dir', tmp_path / 'work')
    assert done.returncode and re.search('cifar10/train does not exist. Give --data', done.stderr)
    assert not (tmp_path / 'work').exists()
