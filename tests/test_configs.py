import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from mmengine.registry import DATASETS, LOOPS, DefaultScope

from tests.conftest import ROOT
from tests.test_tools import test_mmpretrain_tools

CONFIGS = sorted(  # of classifiers; the others have tests of their own
    path.relative_to(ROOT)
    for path in ROOT.glob('configs/[!_]*/**/*.py')
    if not {'captioning', 'detection', 'detection_branch', 'segmentation'} & set(path.parts)
)
# Those that tests/test_model_index.py builds and counts.
PARAMETERS = {
    model['Config']: model['Metadata']['Parameters']
    for file in ROOT.glob('configs/*/metafile.yml')
    for model in yaml.safe_load(file.read_text())['Models']
}


@cache
def read(path):
    return Config.fromfile(ROOT / path)


def test_every_net_has_its_configs():
    names = {path.stem for path in CONFIGS}
    depths = (56, 92, 128, 164, 236, 452)
    assert names >= {f'attention{depth}_cifar{classes}' for depth in depths for classes in (10, 100)}
    assert names >= {f'attention{kind}{depth}_imagenet' for kind in ('', 'next') for depth in (56, 92)}
    assert 'attention56_digits' in names and len(names) == len(CONFIGS)


@pytest.mark.parametrize('path', CONFIGS, ids=str)
def test_every_config_says_what_it_is(path):
    if path.parent.name in ('photos', 'regression'):
        pytest.importorskip('timm')
    text = (ROOT / path).read_text()
    docstring = re.match(r'"""(.+?)"""', text, re.S)[1]
    assert re.search(rf'(tools/train.py|tools/dist_train.sh) {path}\b', docstring)
    cfg = read(path)
    assert cfg.custom_imports.imports == ['mmresattn', 'mmresattn.compat.enabled']
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size * (
        8 if re.search('imagenet|kinetics', path.stem) else 1
    )
    classes = int(re.search(r'cifar(\d+)', path.stem)[1]) if 'cifar' in path.stem else cfg.model.head.num_classes
    assert classes == cfg.model.head.num_classes == cfg.data_preprocessor.num_classes
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        DATASETS.get(cfg.train_dataloader.dataset.type)
    stated = re.search(r'([\d,]+) parameters', docstring)
    if stated or 'digits' not in path.stem:
        assert PARAMETERS[str(path)] == int(stated[1].replace(',', ''))
    assert cfg.train_cfg.get('type', 'EpochBasedTrainLoop') in LOOPS.module_dict
    # MMPretrain's tools that show augmentations and schedules are tried on everything that is in it.
    schedules, data = test_mmpretrain_tools.tried()
    assert test_mmpretrain_tools.types_of_schedule(cfg) <= schedules | {'DeepSpeedOptimWrapper'}
    assert test_mmpretrain_tools.types_of_data(cfg) <= data


def nested(value):
    """All dicts within a config."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from nested(inner)


@pytest.mark.parametrize(
    'path', sorted(path.relative_to(ROOT) for path in ROOT.glob('configs/[!_]*/**/*.py')), ids=lambda path: path.stem
)
def test_every_config_keeps_every_promise(path):
    """What README.md and docs/failures.md say of all trainings."""
    if missing := {'detection': 'mmdet', 'detection_branch': 'mmdet', 'segmentation': 'mmseg'}.get(path.parent.name):
        pytest.importorskip(missing)
    cfg = read(path)
    hooks = {hook.type for hook in cfg.custom_hooks}
    # A resumed run is the uninterrupted one: every draw follows from the seed and from where the run stands.
    assert cfg.randomness.seed is not None and 'ReplayHook' in hooks
    loader = cfg.train_dataloader
    assert loader.sampler.type == 'ReplaySampler' and 'replacement' not in loader.sampler
    assert loader.sampler.get('infinite', False) == (cfg.train_cfg.get('type') == 'IterBasedTrainLoop')
    assert (loader.get('batch_sampler') or {}).get('type') in (None, 'ReplayAspectRatioBatchSampler')
    if loader.dataset.type == 'InMemory':  # loaded once, by a pipeline that does not draw
        (data,) = [part for part in nested(loader.dataset) if 'pipeline' in part]
        assert {step.type for step in data.pipeline} <= {'LoadCheckedImage', 'ResizeEdge', 'CenterCrop', 'PackInputs'}
    else:
        assert loader.dataset.pipeline[0].type == 'ReplaySeed'
    # All splits are of one data set.
    roots = [part.data_root for name in ('train', 'val', 'test') for part in nested(cfg[f'{name}_dataloader'])
             if 'data_root' in part]  # fmt: skip
    assert len({str(root).rstrip('/') for root in roots}) <= 1
    # What processes save agrees. Checkpoints are whole, also that of a run that is told to stop. DeepSpeed
    # writes its own, which are folders, of which docs/distributed.md says what does not hold.
    assert {'SyncSavedBuffersHook', 'StopOnSignalHook'} <= hooks
    assert cfg.default_hooks.checkpoint.type == 'WholeCheckpointHook'
    assert 'NonFiniteLossHook' in hooks  # a loss of NaN stops the run
    for part in nested(cfg.model):  # initial weights fit or are refused
        assert part.get('pretrained') is None
    assert 'mmresattn.compat.enabled' in cfg.custom_imports.imports  # which also guards MMEngine's Pretrained


def test_recipe_of_the_paper_for_cifar():
    cfg = Config.fromfile(ROOT / 'configs/resattn/attention92_cifar10.py')
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    assert (cfg.param_scheduler.milestones, cfg.param_scheduler.gamma) == ([64_000, 96_000], 0.1)
    assert cfg.train_cfg.max_iters == 160_000 and cfg.train_dataloader.batch_size == 64


def test_recipe_of_the_paper_for_imagenet():
    cfg = Config.fromfile(ROOT / 'configs/resattn/attention92_imagenet.py')
    assert cfg.param_scheduler.milestones == [200_000, 400_000, 500_000] and cfg.train_cfg.max_iters == 530_000
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.pipeline[2] == dict(type='CenterCrop', crop_size=320)
    assert cfg.train_dataloader.dataset.pipeline[2] == dict(type='RandomResizedCrop', scale=224)


def test_data_is_looked_for_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv('MMRESATTN_DATA', str(tmp_path))
    cfg = Config.fromfile(ROOT / 'configs/resattn/attention56_cifar100.py')
    for dataset in (cfg.train_dataloader.dataset.dataset, cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
        assert Path(dataset.data_root) == tmp_path / 'cifar100'


def test_lighting_moves_colours_along_the_axes_of_rgb_and_wraps_nothing():
    """MMPretrain's images are BGR; its Lighting casts back to the type of the image, and uint8 would wrap around."""
    import numpy as np
    from mmengine.registry import TRANSFORMS

    cfg = Config.fromfile(ROOT / 'configs/resattn/attention56_imagenet.py')
    pipeline = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert pipeline['LoadCheckedImage'].to_float32
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        lighting = TRANSFORMS.build(pipeline['Lighting'])
    np.random.seed(0)
    white = np.full((2000, 1, 3), 255, np.float32)
    shifts = np.array([lighting.transform(dict(img=pixel[None]))['img'][0, 0] - 255 for pixel in white])
    assert np.abs(shifts).max() < 25  # alpha of 0.1, eigenvalue 55: no pixel jumps to black
    principal = np.linalg.eigh(np.cov(shifts.T))[1][:, -1]  # in BGR
    assert np.allclose(np.abs(principal), [0.5836, 0.5808, 0.5675], atol=0.01)
