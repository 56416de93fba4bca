import argparse
import os
import re
import signal
import sys

import numpy as np
import pytest
import torch
from mmengine import dump, load
from mmengine.config import Config
from mmengine.registry import MODELS
from mmpretrain.evaluation import ConfusionMatrix
from torch.utils.data import DataLoader

from mmresattn.apis import build_runner
from mmresattn.apis.command_line import ArgumentParser, markdown_table, run_tool
from mmresattn.datasets import check_data
from mmresattn.datasets.broken_images import BrokenImage, LoadCheckedImage
from tests.conftest import ROOT
from tools import test as test_tool
from tools import train


def told(main, capsys, monkeypatch, *arguments):
    """Exit status and the line on stderr."""
    monkeypatch.setattr(sys, 'argv', ['tools/tool.py', *arguments])
    with pytest.raises(SystemExit) as end:
        run_tool(main)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('tool.py: error: ') and line.endswith(' (--traceback shows where)')
    return end.value.code, line


class Broken:
    """A data set of which no image can be read."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return LoadCheckedImage().transform(dict(img_path=__file__))


class Faulty(Broken):
    def __getitem__(self, index):
        return int('three')


@pytest.mark.parametrize(
    ('main', 'message'),
    [
        (lambda: check_data(dict(val=dict(dataset=dict(data_root='/none', ann_file='a'))), ['val']),
         'val reads /none/a, which does not exist'),
        (lambda: open('/none/a'), '/none/a: No such file or directory'),
        (lambda: MODELS.build(dict(type='NoSuchNet')), 'NoSuchNet is not in the '),
        (lambda: list(DataLoader(Broken(), num_workers=1)), 'test_command_line.py is no whole image'),
    ],
    ids=['of the package', 'of a file', 'of a registry', 'of a worker'],
)  # fmt: skip
def test_findings_K4_8_mistakes_are_told_in_one_line(main, message, capsys, monkeypatch):
    status, line = told(main, capsys, monkeypatch)
    assert status == 2 and message in line and 'Traceback' not in line
    monkeypatch.setattr(sys, 'argv', ['tool.py', '--traceback'])
    with pytest.raises((FileNotFoundError, KeyError, BrokenImage)):
        run_tool(main)


@pytest.mark.parametrize(
    ('main', 'kind'),
    [
        (lambda: int('three'), ValueError),
        (lambda: ArgumentParser().parse_args([]).nothing, AttributeError),
        (lambda: list(DataLoader(Faulty(), num_workers=1)), ValueError),
    ],
    ids=['Python', 'attribute', 'worker'],
)
def test_faults_of_the_program_keep_their_traceback(main, kind, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tool.py'])
    with pytest.raises(kind):
        run_tool(main)


@pytest.mark.parametrize('tool', [train, test_tool])
def test_findings_K4_8_a_missing_config(tool, capsys, monkeypatch):
    status, line = told(tool.main, capsys, monkeypatch, 'configs/nope.py', *['x.pth'] * (tool is test_tool))
    assert status == 2 and 'configs/nope.py: No such file or directory' in line


class Killed(Broken):
    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_findings_K4_10_a_killed_worker_is_told(capsys, monkeypatch):
    status, line = told(lambda: list(DataLoader(Killed(), num_workers=1)), capsys, monkeypatch)
    assert status == 2 and re.search(
        r'DataLoader worker \(pid\S* \d+\) (is killed by signal|exited unexpectedly)', line
    )


def test_findings_K4_10_also_while_a_config_is_formatted(capsys, monkeypatch):
    """PyTorch tells it by a signal, in the middle of whatever the main process is doing."""

    def main():
        try:
            raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed.')
        except RuntimeError:
            raise SyntaxError('Failed to format the config file' + '\nmodel = dict()' * 1850)  # noqa: B904

    status, line = told(main, capsys, monkeypatch)
    assert status == 2 and 'DataLoader worker (pid 7) is killed by signal: Killed.' in line
    assert 'num_workers' in line and 'config file' not in line


@pytest.mark.parametrize('text', ['model = dict(', 'x = 1 / 0', "_base_ = 'nowhere.py'"])
def test_configs_that_cannot_be_read(text, capsys, monkeypatch, tmp_path):
    (tmp_path / 'c.py').write_text(text)
    status, line = told(lambda: Config.fromfile(tmp_path / 'c.py'), capsys, monkeypatch)
    assert status == 2 and ('The config cannot be read: ' in line or 'nowhere.py: No such file' in line)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_findings_K4_1_fewer_images_than_a_batch(by_epoch, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/resattn/attention56_digits.py')
    cfg.work_dir, cfg.launcher = str(tmp_path), 'none'
    cfg.train_dataloader.num_workers = 0
    cfg.train_dataloader.dataset.indices = 25
    if not by_epoch:
        cfg.train_dataloader.sampler.infinite = True
        cfg.train_cfg = dict(by_epoch=False, max_iters=4)
    with pytest.raises(ValueError, match='25 images to train on, less than a batch of 32.*batch_size to at most 25, or '
                                         'train_dataloader.drop_last=False'):  # fmt: skip
        build_runner(cfg, ['train_dataloader'])


def test_findings_K4_6_a_matrix_of_confusion_is_written(tmp_path):
    matrix = ConfusionMatrix.calculate(torch.tensor([1, 1, 0]), torch.tensor([0, 1, 0]), num_classes=2)
    metrics = {'confusion_matrix/result': matrix, 'accuracy': [np.float32(0.5), (1, torch.tensor(2))]}
    dump(test_tool.plain(metrics), tmp_path / 'm.json')
    assert load(tmp_path / 'm.json') == {'confusion_matrix/result': [[1, 1], [0, 1]], 'accuracy': [0.5, [1, 2]]}


def test_help_shows_every_default():
    parser = ArgumentParser(formatter_class=lambda prog: argparse.HelpFormatter(prog, width=200))
    parser.add_argument('--rate', type=float, default=0.1)
    parser.add_argument('--share', default='50%', help='of all')
    parser.add_argument('--sizes', nargs='+', default=[32, 64], help='sides')
    parser.add_argument('--fast', action='store_true', help='be fast')
    parser.add_argument('--out', help='default: stdout')
    text = parser.format_help()
    assert text == parser.format_help()
    for line in ('default: 0.1', 'of all; default: 50%', 'sides; default: 32 64', 'be fast; default: off',
                 'default: stdout', 'show where an error comes from; default: off'):  # fmt: skip
        assert re.search(rf'(  |; ){re.escape(line)}\n', text + '\n'), line
    assert 'None' not in text


def test_every_tool_has_these_manners():
    tools = [path for path in (ROOT / 'tools').rglob('*.py') if "__name__ == '__main__'" in path.read_text()]
    assert len(tools) > 15
    for path in tools:
        text = path.read_text()
        assert 'run_tool(main)' in text and 'argparse.ArgumentParser(' not in text, path


def test_a_table_in_markdown():
    assert markdown_table(('net', 'error', 'note'), [('a', 1.5, ''), ('b', 20, 'x')], (0, 2)) == (
        '| net | error | note |\n| --- | ---: | --- |\n| a | 1.5 |  |\n| b | 20 | x |\n'
    )
