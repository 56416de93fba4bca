"""Configs in plain Python say what those of configs/ say."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

import mmresattn
from tests.conftest import ROOT

PLAIN = sorted((ROOT / 'mmresattn/configs').glob('[!_]*/[!_]*.py'))
BY_NAME_OR_CLASS = {'pipeline', 'train_pipeline', 'test_pipeline'}


def named(value):
    """A config in which types are written by their names, as in those of configs/, not as package.Name."""
    if isinstance(value, dict):
        return {key: inner.split('.')[-1] if key == 'type' else named(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(named(inner) for inner in value)
    return value


@pytest.mark.parametrize('path', PLAIN, ids=lambda path: path.stem)
def test_same_as_the_classic_config(path, monkeypatch):
    monkeypatch.setenv('MMRESATTN_DATA', '/of/everything')
    classic = Config.fromfile(ROOT / 'configs' / path.relative_to(ROOT / 'mmresattn/configs')).to_dict()
    plain = named(Config.fromfile(path).to_dict())
    for pipelines in (classic, plain):  # not by themselves, but as the data sets hold them
        for name in BY_NAME_OR_CLASS:
            pipelines.pop(name, None)
    assert plain == classic


def test_trains(tmp_path):
    cfg = Config.fromfile(ROOT / 'mmresattn/configs/resattn/attention56_digits.py')
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.model.backbone.arch = dict(base='attention56-cifar', t=1)
    cfg.train_dataloader.num_workers = 0
    cfg.train_dataloader.dataset.split = 'test'
    Runner.from_cfg(cfg).train()
    assert (tmp_path / 'epoch_1.pth').exists()


def test_base_of_a_config_of_ones_own(tmp_path):
    (tmp_path / 'mine.py').write_text(
        'from mmengine.config import read_base\n'
        'with read_base():\n'
        '    from mmresattn.configs.resattn.attention56_digits import *\n'
        'model.merge(dict(head=dict(num_classes=7)))\n'
    )
    cfg = Config.fromfile(tmp_path / 'mine.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    assert isinstance(model.backbone, mmresattn.models.ResidualAttentionNet)
    assert model.head.fc.out_features == 7
