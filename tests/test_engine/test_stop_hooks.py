"""Trainings that are stopped by a signal or a time limit, and resumed."""

import multiprocessing
import os
import signal
import subprocess
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from torch import nn

from mmresattn.apis import latest_checkpoint
from mmresattn.engine import CompileBackboneHook, TimeBudgetHook, TrainingStopped
from tests.conftest import ROOT


def runner(work_dir, by_epoch, *hooks):
    """Three epochs of two iterations, or six iterations; checkpoints every two epochs or iterations."""
    cfg = Config.fromfile(ROOT / 'configs/resattn/attention56_digits.py')
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = work_dir.name
    cfg.model.backbone.arch = dict(
        base='attention56-cifar',
        channels=(8, 8, 8),
        stem_channels=8,
        modules=(1, 1, 0),
        units_after=(0, 0, 0),
        poolings=(1, 1, 1),
        t=1,
        bottom_units=1,
    )
    cfg.model.head.in_channels = 8
    cfg.train_dataloader.dataset.indices = 64
    cfg.val_dataloader.dataset.indices = 32
    cfg.train_dataloader.persistent_workers = True
    cfg.train_dataloader.sampler.infinite = not by_epoch
    iterations = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=9)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=9) if by_epoch else iterations
    cfg.param_scheduler = dict(type='LinearLR', start_factor=0.5, end=6, by_epoch=False)
    cfg.default_hooks.checkpoint.update(interval=2, by_epoch=by_epoch)
    cfg.custom_hooks += hooks
    cfg.load_from = latest_checkpoint(work_dir)
    cfg.resume = cfg.load_from is not None
    return Runner.from_cfg(cfg)


class SignalAfter(Hook):
    """Another process sends a signal to this one and its workers, as schedulers do."""

    def __init__(self, iteration, number):
        self.iteration, self.number = iteration, number

    def after_train_iter(self, runner, **kwargs):
        if runner.iter + 1 == self.iteration:
            workers = multiprocessing.active_children()
            assert workers
            pids = [str(pid) for pid in (*(worker.pid for worker in workers), os.getpid())]
            subprocess.run(['kill', f'-{int(self.number)}', *pids], check=True)


@pytest.mark.parametrize(('by_epoch', 'number'), [(True, signal.SIGTERM), (False, signal.SIGUSR1)])
def test_stopped_by_a_signal_and_resumed_is_uninterrupted(tmp_path, by_epoch, number, request):
    handler = signal.getsignal(number)
    request.addfinalizer(lambda: signal.signal(number, handler))
    runner(tmp_path / 'whole', by_epoch, dict(type='TimeBudgetHook', minutes=60)).train()
    assert signal.getsignal(number) == handler

    parts, iteration = tmp_path / 'parts', 4 if by_epoch else 3  # what ends an epoch besides is yet to come
    part = runner(parts, by_epoch)
    part.register_hook(SignalAfter(iteration, number))
    with pytest.raises(TrainingStopped) as stopped:
        part.train()
    assert stopped.value.code == 75 and stopped.value.iteration == iteration
    for worker in multiprocessing.active_children():  # as at the exit of the process
        worker.terminate()
        worker.join(20)
        assert worker.exitcode == 0
    assert torch.load(latest_checkpoint(parts), weights_only=False)['meta']['iter'] == iteration
    runner(parts, by_epoch).train()
    assert not (parts / 'stopped.pth').exists() and (parts / f'{"epoch_2" if by_epoch else "iter_4"}.pth').exists()
    whole, again = (torch.load(latest_checkpoint(run), weights_only=False) for run in (tmp_path / 'whole', parts))
    for key in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(value, again[key][name]) for name, value in whole[key].items())


def test_time_is_up(tmp_path):
    with pytest.raises(ValueError, match='minutes must be more than 0, not 0'):
        TimeBudgetHook(minutes=0)
    with pytest.raises(TrainingStopped):
        runner(tmp_path, True, dict(type='TimeBudgetHook', minutes=1e-9)).train()
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'stopped.pth')


def test_findings_K6_5_a_run_that_cannot_save_is_refused_before_it_begins(tmp_path):
    run = runner(tmp_path, True, dict(type='TimeBudgetHook', minutes=1e-9))
    run._hooks = [hook for hook in run.hooks if not isinstance(hook, CheckpointHook)]
    with pytest.raises(ValueError, match='TimeBudgetHook saves by a CheckpointHook, and this run has none'):
        run.train()
    assert run.iter == 0


def test_a_job_of_slurm_that_stops_is_queued_again_and_resumes(tmp_path):
    """With stand-ins for Slurm's commands: sbatch runs the job, srun ends with the status of a stopped training."""
    commands = dict(
        sbatch='for last; do :; done; echo "$*" >> calls; export SLURM_JOB_ID=7; bash -c "${last#--wrap=}"',
        srun='echo "srun $*" >> calls; exit ${STATUS}',
        scontrol='echo "scontrol $*" >> calls',
    )
    for name, text in commands.items():
        (tmp_path / name).write_text(f'#!/usr/bin/env bash\n{text}\n')
        (tmp_path / name).chmod(0o755)

    def submit(status, *args, **variables):
        (tmp_path / 'calls').unlink(missing_ok=True)
        env = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'STATUS': str(status), **variables}
        script = ['bash', str(ROOT / 'tools/slurm_train.sh'), *args]
        done = subprocess.run(script, cwd=tmp_path, env=env, capture_output=True, text=True)
        return done, (tmp_path / 'calls').read_text() if args else ''

    job = ('gpus', 'a job', 'config.py', 'work dir', '--cfg-options', "a='b c'")
    done, calls = submit(75, *job)
    assert done.returncode == 75 and '--requeue --signal=USR1@300' in calls and 'scontrol requeue 7' in calls
    assert "config.py --work-dir work dir --launcher slurm --cfg-options a='b c'\n" in calls
    done, calls = submit(75, *job, SLURM_RESTART_COUNT='1')
    assert "--cfg-options a='b c' --resume\n" in calls
    for status in (0, 1):
        done, calls = submit(status, *job)
        assert done.returncode == status and 'scontrol' not in calls.replace('then scontrol', '')
    done, _ = submit(0)
    assert done.returncode == 2 and 'Usage: bash tools/slurm_train.sh PARTITION' in done.stderr


@pytest.mark.parametrize(('script', 'args'), [('dist_train.sh', ['config.py']), ('dist_test.sh', ['a', 'b', 'c'])])
def test_a_launcher_without_a_number_of_processes_says_its_usage(script, args):
    done = subprocess.run(['bash', str(ROOT / 'tools' / script), *args], capture_output=True, text=True)
    assert done.returncode == 2 and f'Usage: bash tools/{script} CONFIG' in done.stderr


def test_a_compiled_backbone_keeps_its_names_and_outputs():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    names, images = list(model.state_dict()), torch.randn(2, 3, 5, 5)
    expected = model.backbone(images)
    CompileBackboneHook(backend=backend, fullgraph=True).before_run(SimpleNamespace(model=model))
    assert torch.equal(model.backbone(images), expected)
    assert list(model.state_dict()) == names and len(graphs) == 1
