"""A training by epochs that stops in time; a training by iterations does in tests/test_tools/test_headline.py."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import nn

from mmresattn.engine import CompileBackboneHook, TimeBudgetHook
from tests.conftest import ROOT


def runner(work_dir, *hooks, **settings):
    cfg = Config.fromfile(ROOT / 'configs/resattn/attention56_digits.py')
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = work_dir.name
    cfg.model.backbone.arch = dict(base='attention56-cifar', channels=(8, 8, 8), stem_channels=8)
    cfg.model.head.in_channels = 8
    cfg.train_dataloader.num_workers = 0
    cfg.train_dataloader.dataset.indices = 64
    cfg.train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=9)
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint.interval = 2
    cfg.custom_hooks += hooks
    cfg.merge_from_dict(settings)
    return Runner.from_cfg(cfg)


def test_ends_with_an_epoch_and_goes_on_as_if_it_had_not(tmp_path):
    whole = runner(tmp_path / 'whole')
    whole.train()
    parts = tmp_path / 'parts'
    for epoch in (1, 2, 3):
        budget = dict(type='TimeBudgetHook', minutes=1e-9)
        resumed = dict(resume=True, load_from=str(parts / f'epoch_{epoch - 1}.pth')) if epoch > 1 else {}
        part = runner(parts, budget, **resumed)
        part.train()
        assert part.epoch == epoch and (parts / f'epoch_{epoch}.pth').exists()  # also where no checkpoint was due
        assert next(h for h in part.hooks if isinstance(h, TimeBudgetHook)).stopped == (epoch < 3)
    weights = part.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.model.state_dict().items())


def test_findings_K6_5_a_run_that_cannot_save_is_refused_before_it_begins(tmp_path):
    run = runner(tmp_path, dict(type='TimeBudgetHook', minutes=1e-9))
    run._hooks = [hook for hook in run.hooks if not isinstance(hook, CheckpointHook)]
    with pytest.raises(ValueError, match='TimeBudgetHook saves by a CheckpointHook, and this run has none'):
        run.train()
    assert run.iter == 0


def test_time_enough_changes_nothing(tmp_path):
    with pytest.raises(ValueError, match='minutes must be more than 0, not 0'):
        TimeBudgetHook(minutes=0)
    run = runner(tmp_path, dict(type='TimeBudgetHook', minutes=60))
    run.train()
    assert run.epoch == 3 and not next(h for h in run.hooks if isinstance(h, TimeBudgetHook)).stopped


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
