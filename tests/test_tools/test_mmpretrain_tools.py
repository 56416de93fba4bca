"""MMPretrain's own tools run on the configs of this package: people look at their augmentation and schedule first."""

import importlib.util
import inspect
import sys
from functools import cache
from pathlib import Path

import cv2
import mmpretrain
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS

CONFIGS = Path(__file__).parents[2] / 'configs'
# Between them they have every hook, loop, schedule, data set and step of a pipeline of the classifiers' configs, as
# tests/test_configs.py checks. DeepSpeed's schedules belong to DeepSpeed.
SCHEDULES = [
    'aaconv/aa-resnet101_imagenet', 'aaconv/aa-wrn28-10_cifar100', 'abn/abn-multitask_digits',
    'compare/aa-wrn16-2_cifar10', 'detection/faster-rcnn_attention56-cifar_fpn_bccd',
    'nonlocal/nonlocal-resnet50-10block_imagenet', 'pay_attention/vgg-att1-dp_cifar10',
    'photos/plain_efficientnet-lite0', 'resattn/attention56_cifar10_fast',
]  # fmt: skip
AUGMENTATIONS = [
    'abn/abn-multitask_digits', 'abn/abn-multitask-resnet101-avg_celeba', 'abn/abn-resnet20-edited_cifar100',
    'photos/plain_efficientnet-lite0', 'regression/plain_efficientnet-lite0_bccd', 'resattn/attention56_cifar10',
    'resattn/attention56_cifar10_fast',
    'nonlocal/nonlocal-resnet50-10block_imagenet', 'senet/se-resnet50_imagenet',
    'resattn/ablations/resnet164_noise10_cifar10',
]  # fmt: skip
TOOLS = Path(mmpretrain.__file__).parent / '.mim/tools/visualization'


def types(value):
    """All types within a part of a config."""
    if isinstance(value, dict):
        return {str(value.get('type'))}.union(*map(types, value.values()))
    return set().union(*map(types, value)) if isinstance(value, list | tuple) else set()


def types_of_schedule(cfg):
    return types([cfg.custom_hooks, cfg.default_hooks, cfg.get('param_scheduler'), cfg.train_cfg, cfg.optim_wrapper])


def types_of_data(cfg):
    return types(cfg.train_dataloader.dataset)


@cache
def tried():
    """Types in the schedules and in the data that the tests below run on."""
    pairs = ((SCHEDULES, types_of_schedule), (AUGMENTATIONS, types_of_data))
    return [set().union(*(of(Config.fromfile(CONFIGS / f'{name}.py')) for name in names)) for names, of in pairs]


def load_tool(name):
    pytest.importorskip('matplotlib').use('Agg')
    spec = importlib.util.spec_from_file_location(f'mmpretrain_{name}', TOOLS / f'{name}.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp('photographs')
    pixels = np.random.default_rng(0)
    for name in ('a/1.png', 'b/2.png'):
        (root / name).parent.mkdir()
        cv2.imwrite(str(root / name), pixels.integers(0, 256, (40, 48, 3), np.uint8))
    return root


def test_findings_K4_7_vis_scheduler(tmp_path, monkeypatch):
    tool, curves = load_tool('vis_scheduler'), []
    monkeypatch.setattr(tool, 'plot_curve', lambda values, *args, **kwargs: curves.append(values))
    for path in (CONFIGS / f'{name}.py' for name in SCHEDULES):
        cfg = Config.fromfile(path)
        steps, length = (3, 'max_iters=3') if 'max_iters' in cfg.train_cfg else (4, 'max_epochs=2')
        monkeypatch.setattr(sys, 'argv', [
            'vis_scheduler', str(path), '--dataset-size', str(2 * cfg.train_dataloader.batch_size), '--not-show',
            '--cfg-options', f'work_dir={tmp_path}', f'train_cfg.{length}',
        ])  # fmt: skip
        tool.main()
        assert len(curves[-1]) == steps and max(curves[-1]) > 0, path


def test_findings_K4_7_browse_dataset(photographs, tmp_path, monkeypatch):
    tool = load_tool('browse_dataset')

    def replace_folder(cfg):
        if 'dataset' in cfg:
            return dict(cfg, dataset=replace_folder(cfg.dataset))
        if cfg.type == 'ImageArrays':
            return cfg
        if cfg.type == 'PhotoFolder':
            return dict(cfg, data_root=str(photographs))
        for step in cfg.pipeline:
            if step.type == 'LoadAttentionMap':
                step.map_root, step.image_root = str(photographs.parent), str(photographs)  # none has a map
        return dict(type='ImageFolders', data_root=str(photographs), pipeline=cfg.pipeline)

    if 'renderer' in inspect.signature(tool.adjust_bbox).parameters:  # of Matplotlib's, which MMPretrain does not give
        adjust = tool.adjust_bbox
        monkeypatch.setattr(tool, 'adjust_bbox', lambda figure, box: adjust(figure, box, figure.canvas.get_renderer()))
    monkeypatch.setattr(tool, 'build_dataset', lambda cfg: DATASETS.build(replace_folder(cfg)))
    for path in (CONFIGS / f'{name}.py' for name in AUGMENTATIONS):
        folder = tmp_path / path.stem
        monkeypatch.setattr(sys, 'argv', [
            'browse_dataset', str(path), '--output-dir', str(folder), '--not-show', '--show-number', '1',
            '--cfg-options', f'work_dir={tmp_path}', f'visualizer.save_dir={tmp_path}',
        ])  # fmt: skip
        tool.main()
        assert len(list(folder.iterdir())) == 1, path
