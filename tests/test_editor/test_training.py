"""Training from the corrections, as the page starts it."""

import json
import sys
import time

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmresattn.apis import training_config
from mmresattn.apis.before_after import compare
from mmresattn.editor import AttentionEditor, training
from tools import attention_editor


@pytest.fixture
def editor(project, tmp_path):
    folder, config, checkpoint = project
    return AttentionEditor(config, checkpoint, folder / 'edit', tmp_path / 'out', 'cpu')


def correct(editor):
    editor.save('bee/1.png', 'neck.map', np.eye(16, dtype=np.float32))


def test_options_of_the_command_line_reach_the_training(project, tmp_path, monkeypatch):
    """Its process reads the config again, from a file."""
    server = pytest.importorskip('mmresattn.editor.server')
    folder, config, checkpoint = project
    served = []
    monkeypatch.setattr(server, 'serve', lambda editor, *_: served.append(editor))
    files = ['--config', config, '--checkpoint', checkpoint, '--images', folder / 'edit', '--out', tmp_path / 'out']
    attention_editor.main([*map(str, files), '--device', 'cpu', '--cfg-options', 'train_dataloader.batch_size=5'])
    (editor,) = served
    correct(editor)
    cfg = training_config(editor.config, editor.checkpoint_file, editor.out, 'augment')
    assert cfg.train_dataloader.batch_size == 5 != Config.fromfile(config).train_dataloader.batch_size
    assert editor.config.parent == tmp_path / 'out'


SCRIPT = """
import signal, sys, time
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
folder = sys.argv[sys.argv.index('--work-dir') + 1]
for step in range(1, 200):
    print(f'INFO - Epoch(train) [1][{step}/199]  loss: 1', flush=True)
    time.sleep(0.1)
    if stop or step == int(open(folder + '/steps').read()):
        open(folder + '/epoch_1.pth', 'w').close()
        sys.exit(75 if stop else 0)
"""


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_progress_stop_and_result(editor, tmp_path, monkeypatch):
    """The states of a training, with short scripts in place of tools/train.py and the comparison."""
    (tmp_path / 'train.py').write_text(SCRIPT)
    (tmp_path / 'before_after.py').write_text(
        'import sys, pathlib\nout = pathlib.Path(sys.argv[-1])\nout.mkdir()\n'
        '(out / "before_after.json").write_text(\'{"images": 3}\')\n(out / "a.png").touch()\n'
    )
    monkeypatch.setattr(training, '_tool', lambda name: str(tmp_path / name.split('/')[-1]))
    run = training.Training(editor)
    assert run.status() == dict(state='idle')
    with pytest.raises(FileNotFoundError, match='manifest'):
        run.start('map_loss')
    with pytest.raises(ValueError, match="cannot be used as 'no'"):
        run.start('no')
    correct(editor)

    def start(steps):
        monkeypatch.setattr(run, 'command', lambda: _command(run, steps))
        run.start('map_loss')

    start(199)
    wait_for(lambda: run.status()['progress'] > 0.02)
    with pytest.raises(ValueError, match='is running'):
        run.start('map_loss')
    run.stop()
    wait_for(lambda: run.state == 'stopped')
    assert 0 < run.status()['progress'] < 0.9 and (run.folder / 'epoch_1.pth').exists()
    start(3)
    wait_for(lambda: run.state == 'done')
    status = run.status()
    assert status['result'] == {'images': 3} and run.folder.name == '2_map_loss' and 'train.py' in status['command']
    assert run.picture('a.png').is_file()
    for name in ('../config.py', 'b.png', 'before_after.json'):
        with pytest.raises(KeyError):
            run.picture(name)


def _command(run, steps):
    if not (run.folder / 'steps').exists():  # status() asks for the command, too, while the script reads the file
        (run.folder / 'steps').write_text(str(steps))
    return [sys.executable, training._tool('train.py'), str(run.folder / 'config.py'), '--work-dir', str(run.folder)]


def test_before_and_after(project, tmp_path):
    folder, config, checkpoint = project
    other = torch.load(checkpoint, weights_only=True)
    for name, value in other['state_dict'].items():
        if value.dim() > 1:
            other['state_dict'][name] = value + 0.2 * torch.randn(value.shape, generator=torch.manual_seed(1))
    torch.save(other, tmp_path / 'other.pth')
    result = compare((config, checkpoint), (config, tmp_path / 'other.pth'), tmp_path / 'out', examples=1)
    paths = checkpoint, tmp_path / 'other.pth'
    mistakes = [set(AttentionEditor(config, path, folder / 'test', tmp_path / 'o').mistakes()) for path in paths]
    right, wrong = ({'/'.join(path.split('/')[-2:]) for path in result[change]} for change in ('to_right', 'to_wrong'))
    assert result['accuracy'] == pytest.approx([1 - len(names) / 6 for names in mistakes])
    assert right == mistakes[0] - mistakes[1] and wrong == mistakes[1] - mistakes[0] and right | wrong
    assert json.loads((tmp_path / 'out/before_after.json').read_text()) == result
    for example in result['examples']:
        before, after = (cv2.imread(str(tmp_path / 'out' / name)) for name in example['pictures'])
        assert before.shape == after.shape == (32, 32, 3) and (before != after).any()
