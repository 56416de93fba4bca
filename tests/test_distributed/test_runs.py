"""Whole runs of tools/train.py in two processes of a CPU."""

import os
import signal

import pytest
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmresattn.engine import TrainingStopped
from tests.conftest import ROOT
from tests.test_tools import test_train
from tools import train as train_tool

ITERATIONS, BATCH, LR = 6, 8, 0.1
CONFIG = f"""
_base_ = '{ROOT}/configs/{{}}.py'
arch = dict(
    _delete_=True, base='attention56-cifar', channels=(8, 8, 8), stem_channels=8, poolings=(1, 1, 1), t=1,
    bottom_units=1
)
model = dict(
    backbone=dict(arch=arch),
    head=dict(in_channels=8),
)
train_dataloader = dict(batch_size={BATCH}, num_workers=0, sampler=dict(infinite=True))
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters={ITERATIONS}, val_interval=1000)
optim_wrapper = dict(optimizer=dict(lr={LR}))
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, start_factor=0.25, begin=0, end=4),
    dict(type='MultiStepLR', by_epoch=False, milestones=[4], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3))
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type='ReplayHook'), dict(type='SyncSavedBuffersHook'), dict(type='RatesOfTest')]
"""


@HOOKS.register_module(force=True)  # pytest may import a file twice
class RatesOfTest(Hook):
    """Notes the rate with which every step is made."""

    seen = ()

    def __init__(self):
        type(self).seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append([group['lr'] for group in runner.optim_wrapper.optimizer.param_groups])


@HOOKS.register_module(force=True)
class SignalOfTest(Hook):
    """Sends SIGTERM to the second process after four iterations."""

    def after_train_iter(self, runner, **kwargs):
        if get_rank() == 1 and runner.iter == 3:
            signal.raise_signal(signal.SIGTERM)


def train(rank, config, work_dir, *args):
    os.environ.update(LOCAL_RANK=str(rank))
    train_tool.main([str(config), '--work-dir', str(work_dir), '--launcher', 'pytorch', *args])
    return RatesOfTest.seen


def write(folder, base, text=''):
    path = folder / f'{base.split("/")[-1]}.py'
    path.write_text(CONFIG.format(base) + text)
    return path


def weights(work_dir, iteration=ITERATIONS):
    return torch.load(work_dir / f'iter_{iteration}.pth', weights_only=True)['state_dict']


ON_CPU = ('--cfg-options', 'strategy.model_wrapper.device_id=cpu')
PLAN = [0.25, 0.5, 0.75, 1.0, 0.1, 0.1]  # warm-up over the first three steps, then a tenth


DECAYED = f"""
optim_wrapper = dict(
    optimizer=dict(lr={LR}),
    constructor='BackboneLayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.5),
)
"""


@pytest.mark.parametrize(('processes', 'text', 'least'), [(1, '', 1.0), (2, DECAYED, 0.5**10)], ids=['1', '2, layers'])
def test_rate_is_scaled_by_the_batches_of_all_processes(in_processes, tmp_path, processes, text, least):
    """Linearly, also under a warm-up, and where every layer has its own: the stem is ten steps below the head."""
    config = write(tmp_path, 'resattn/attention56_digits', text)
    expected = [LR * factor * BATCH * processes / 32 for factor in PLAN]
    for seen in in_processes(train, config, tmp_path / 'work', '--auto-scale-lr', processes=processes):
        assert [max(rates) for rates in seen] == pytest.approx(expected)
        assert [min(rates) for rates in seen] == pytest.approx([rate * least for rate in expected])


def test_fsdp_trains_and_resumes_as_ddp_does(in_processes, tmp_path):
    plain = write(tmp_path, 'resattn/attention56_digits')
    divided = write(tmp_path, 'distributed/attention56_digits_fsdp')
    rates = in_processes(train, plain, tmp_path / 'ddp')
    assert [max(rate) for rate in rates[1]] == pytest.approx([LR * factor for factor in PLAN])
    assert in_processes(train, divided, tmp_path / 'fsdp', *ON_CPU) == rates
    expected, found = weights(tmp_path / 'ddp'), weights(tmp_path / 'fsdp')
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
    resumed = ('--resume', str(tmp_path / 'fsdp' / 'iter_3.pth'))
    in_processes(train, divided, tmp_path / 'resumed', *resumed, *ON_CPU)
    for name, weight in weights(tmp_path / 'resumed').items():
        torch.testing.assert_close(weight, found[name], rtol=1e-5, atol=1e-6)


def test_ddp_resumes_exactly_buffers_too(in_processes, tmp_path):
    """With all that is random, as in one process; every process has statistics of its own until they are saved."""
    text = test_train.ITERATIONS.replace('max_iters=30, val_interval=1000', 'max_iters=8, val_interval=1000')
    config = test_train.write(tmp_path, text)
    in_processes(train, config, tmp_path / 'a')
    in_processes(train, config, tmp_path / 'b', '--resume', str(tmp_path / 'a' / 'iter_5.pth'))
    a, b = (weights(tmp_path / run, 8) for run in 'ab')
    assert any('running_var' in key for key in a) and all(torch.equal(a[key], b[key]) for key in a)


def train_and_stop(rank, config, work_dir):
    with pytest.raises(TrainingStopped) as stopped:
        train(rank, config, work_dir)
    return stopped.value.iteration


def test_a_signal_to_one_process_stops_all(in_processes, tmp_path):
    hooks = ('StopOnSignalHook', 'ReplayHook', 'SyncSavedBuffersHook', 'SignalOfTest')
    to_one = f'custom_hooks = [{", ".join(f"dict(type={hook!r})" for hook in hooks)}]\n'
    config = write(tmp_path, 'resattn/attention56_digits')
    (tmp_path / 'signalled').mkdir()
    signalled = write(tmp_path / 'signalled', 'resattn/attention56_digits', to_one)
    assert in_processes(train_and_stop, signalled, tmp_path / 'parts') == [4, 4]
    assert torch.load(tmp_path / 'parts/iter_4.pth', weights_only=False)['meta']['iter'] == 4
    in_processes(train, config, tmp_path / 'parts', '--resume')
    in_processes(train, config, tmp_path / 'whole')
    whole, parts = (weights(tmp_path / run) for run in ('whole', 'parts'))
    for name, value in whole.items():
        # Averaging the statistics of BatchNorm at iteration 4 rounds them; no weight depends on them.
        rtol, atol = (1e-5, 1e-8) if 'running' in name else (0, 0)
        torch.testing.assert_close(parts[name], value, rtol=rtol, atol=atol)
