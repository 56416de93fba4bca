"""One network trained in slices, tested once."""

import json
import signal

import headline
import pytest
import resume_time
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT, Script

CONFIG = """
_base_ = '{root}/configs/resattn/attention56_digits.py'
arch = dict(
    _delete_=True, base='attention56-cifar', channels=(8, 8, 8), stem_channels=8, modules=(1, 1, 0),
    poolings=(1, 1, 1), units_after=(0, 0, 0), t=1, bottom_units=1
)
model = dict(
    backbone=dict(arch=arch),
    head=dict(in_channels=8),
)
data_preprocessor = dict(
    type='BatchTransformPreprocessor', batch_transforms=[dict(type='BatchRandomCrop', padding=2)]
)
images = dict(type='ImageArrays', data='digits', split='train', indices=40, pipeline=_base_.test_pipeline)
train_dataloader = dict(
    num_workers=0,
    batch_size=16,
    collate_fn=dict(type='one_batch'),
    sampler=dict(infinite=True),
    dataset=dict(_delete_=True, type='InMemory', dataset=images),
)
param_scheduler = [dict(type='PolyLR', by_epoch=False, end=8)]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=100))
test_dataloader = dict(dataset=dict(indices=50))
"""


@pytest.fixture(autouse=True)
def forked(monkeypatch):
    """The tools that it runs as processes do not import everything anew."""
    monkeypatch.setattr(headline, 'tool', lambda name, *args: Script(ROOT / 'tools' / name, *args).finish())


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'tiny.py'
    path.write_text(CONFIG.format(root=ROOT))
    return path


def weights(work_dir):
    return torch.load(work_dir / 'iter_2.pth', weights_only=False)['state_dict']


def test_slices_give_the_uninterrupted_training_and_one_record(config, tmp_path, capsys, monkeypatch, saved_figures):
    sliced = [str(config), '--eager', '--minutes', '1e-9', '--work-dir', str(tmp_path / 'sliced')]
    headline.main(sliced)
    assert 'Iteration 1 of 2' in capsys.readouterr().out
    assert not (tmp_path / 'sliced/seed0/record.json').exists()
    headline.main(sliced)
    folder = tmp_path / 'sliced/seed0'
    record = json.loads((folder / 'record.json').read_text())
    assert record['iterations'] == 2 and record['training_images'] == 40 and record['batch_size'] == 16
    tested = json.loads((folder / 'test/metrics.json').read_text())
    assert record['test_error'] == pytest.approx(100 - tested['accuracy/top1'], abs=0.01)
    curve = saved_figures['curve.png'].axes[0].lines[0]
    logged = [line for line in headline.scalars(folder) if 'loss' in line]
    assert [list(curve.get_xdata()), list(curve.get_ydata())] == [
        [line[key] for line in logged] for key in ('iter', 'loss')
    ]
    half = load_file(folder / 'tiny.safetensors')  # an untrained net loses nothing by rounding
    assert half['head.fc.weight'].dtype == torch.float16
    headline.main(sliced)
    assert json.loads(capsys.readouterr().out[-len((folder / 'record.json').read_text()) - 1 :]) == record

    monkeypatch.setattr(headline, 'test_accuracy', lambda *arguments: 1 / 0)  # trained, and no more
    with pytest.raises(ZeroDivisionError):
        headline.main([str(config), '--eager', '--work-dir', str(tmp_path / 'whole')])
    whole, sliced = weights(tmp_path / 'whole/seed0'), weights(folder)
    assert whole.keys() == sliced.keys() and all(torch.equal(whole[name], sliced[name]) for name in whole)


def test_a_fresh_clone_continues_from_unfinished_weights(config, tmp_path, capsys, monkeypatch):
    kept = tmp_path / 'unfinished.safetensors'
    start = [str(config), '--eager', '--minutes', '1e-9', '--unfinished', str(kept)]
    without_average = "\ncustom_hooks = [hook for hook in _base_.custom_hooks if hook.type != 'EMAHook']\n"
    config.write_text(config.read_text().replace('max_iters=2', 'max_iters=4') + without_average)
    headline.main([*start, '--work-dir', str(tmp_path / 'first')])
    first = torch.load(tmp_path / 'first/seed0/iter_1.pth', weights_only=False)
    half = load_file(kept)
    assert all(torch.equal(half[name], value.to(half[name].dtype)) for name, value in first['state_dict'].items())
    capsys.readouterr()
    headline.main([*start, '--work-dir', str(tmp_path / 'clone')])
    assert 'Iteration 2 of 4' in (out := capsys.readouterr().out) and 'Continued at iteration 1 from half' in out
    install = signal.signal

    def install_and_raise(number, handler):
        monkeypatch.setattr(signal, 'signal', install)
        before = install(number, handler)
        signal.raise_signal(number)
        return before

    monkeypatch.setattr(signal, 'signal', install_and_raise)  # SIGTERM comes as the training begins
    headline.main([str(config), '--eager', '--work-dir', str(tmp_path / 'first')])
    assert 'Iteration 2 of 4' in capsys.readouterr().out
    whole, clone = (
        torch.load(tmp_path / f'{name}/seed0/iter_2.pth', weights_only=False) for name in ('first', 'clone')
    )
    assert [group['lr'] for group in clone['optimizer']['param_groups']] == [
        group['lr'] for group in whole['optimizer']['param_groups']
    ]
    for name, value in whole['state_dict'].items():  # but for rounding and the momentum of one step
        torch.testing.assert_close(clone['state_dict'][name].float(), value.float(), atol=0.05, rtol=0.05)


def test_held_out_images_are_of_the_training_images(config, tmp_path):
    headline.main([str(config), '--eager', '--holdout', '--work-dir', str(tmp_path)])
    record = json.loads((tmp_path / 'seed0-holdout/record.json').read_text())
    assert record['training_images'] == 36 and 0 <= record['held_out_accuracy'] <= 100
    assert 'test_error' not in record


@pytest.mark.parametrize('parse', [headline.parse_args, resume_time.main], ids=['headline', 'resume_time'])
def test_findings_K6_6_options_without_effect_are_gone(parse, capsys):
    with pytest.raises(SystemExit):
        parse(['config.py', '--amp'])
    assert 'unrecognized arguments: --amp' in capsys.readouterr().err
