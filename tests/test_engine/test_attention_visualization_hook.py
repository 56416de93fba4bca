import random
import re

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import VISBACKENDS, DefaultScope
from mmengine.visualization import LocalVisBackend

import mmresattn.engine.attention_visualization_hook as module
from mmresattn.apis import build_runner
from mmresattn.engine import AttentionVisualizationHook
from mmresattn.models.layers import record_attention
from mmresattn.visualization import overlay, reduce_channels
from tests.conftest import ROOT

TINY = dict(_delete_=True, base='attention56-cifar', channels=(8, 8, 8), modules=(1, 1, 0), poolings=(1, 1, 1), t=1,
            bottom_units=1, units_after=(0, 0, 0))  # fmt: skip
WRITTEN = []


@VISBACKENDS.register_module(name='Kept', force=True)
class Kept(LocalVisBackend):
    """Keeps pictures for the tests."""

    def add_image(self, name, image, step=0, **kwargs):
        WRITTEN.append((name, step, image.copy()))
        super().add_image(name, image, step, **kwargs)


@pytest.fixture(autouse=True)
def nothing_written():
    WRITTEN.clear()


def config(folder, hook=None, epochs=2):
    cfg = Config.fromfile(f'{ROOT}/configs/resattn/attention56_digits.py')
    cfg.merge_from_dict(
        dict(
            work_dir=str(folder),
            launcher='none',
            log_level='ERROR',
            model=dict(backbone=dict(arch=dict(TINY)), head=dict(in_channels=8)),
            train_cfg=dict(max_epochs=epochs, val_interval=100),
            train_dataloader=dict(
                num_workers=0, dataset=dict(indices=64), sampler=dict(type='DefaultSampler', shuffle=True)
            ),
            val_dataloader=dict(dataset=dict(indices=40)),
            vis_backends=[dict(type='Kept')],
            visualizer=dict(vis_backends=[dict(type='Kept')], name=str(folder)),
        )
    )
    cfg.default_hooks.checkpoint = None
    # No ReplayHook and no ReplaySeed: what the hook draws at random would show.
    cfg.train_dataloader.dataset.pipeline = cfg.train_dataloader.dataset.pipeline[1:]
    cfg.custom_hooks = []
    if hook:
        cfg.default_hooks.attention = hook
    return cfg


def train(cfg):
    runner = build_runner(cfg, ['train_dataloader', 'val_dataloader'])
    runner.train()
    DefaultScope._instance_dict.clear()
    return runner


def test_weights_are_those_of_a_run_without(tmp_path, monkeypatch):
    def draws(method):
        def drawing(*args):
            random.random(), np.random.rand(), torch.rand(1)
            return method(*args)

        return drawing

    plain = train(config(tmp_path / 'plain'))
    monkeypatch.setattr(module, '_evaluated', draws(module._evaluated))  # within what is put back
    hook = dict(type='AttentionVisualizationHook', interval=1, images=3)
    seen = train(config(tmp_path / 'seen', hook))
    assert len(WRITTEN) == 4  # two maps, two epochs
    expected, found = plain.model.state_dict(), seen.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    # Had it drawn from the random state of the run, it would show.
    monkeypatch.setattr(AttentionVisualizationHook, '_draw', draws(AttentionVisualizationHook._draw))
    other = train(config(tmp_path / 'other', hook)).model.state_dict()
    assert not all(torch.equal(other[name], value) for name, value in expected.items())


def test_pictures_are_maps_of_the_images(tmp_path):
    hook = dict(type='AttentionVisualizationHook', interval=2, images=[5, 9, 30])
    runner = train(config(tmp_path, hook, epochs=4))
    assert [(name, step) for name, step, _ in WRITTEN] == [
        (f'attention_stage{stage}.attention1', step) for step in (2, 4) for stage in (1, 2)
    ]
    files = {path.name for path in tmp_path.glob('*/vis_data/vis_image/*.png')}
    assert files == {f'attention_stage{stage}.attention1_{step}.png' for step in (2, 4) for stage in (1, 2)}
    (hook,) = [one for one in runner.hooks if isinstance(one, AttentionVisualizationHook)]
    WRITTEN.clear()
    hook._draw(runner, 7)
    dataset = runner.val_loop.dataloader.dataset
    images = torch.stack([dataset[index]['inputs'] for index in (5, 9, 30)])
    runner.model.eval()
    with torch.no_grad(), record_attention(runner.model) as maps:
        runner.model(runner.model.data_preprocessor(dict(inputs=images))['inputs'], mode='tensor')
    name, step, picture = WRITTEN[1]
    attention = reduce_channels(maps['backbone.stage2.attention1.map'])
    attention = F.interpolate(attention, (16, 16), mode='bilinear')[:, 0]
    assert name == 'attention_stage2.attention1' and step == 7
    assert picture.shape == (2 * 128 + 20, 3 * (128 + 4), 3)
    low, high = attention.min().item(), attention.max().item()
    for i, (image, one) in enumerate(zip(images, attention)):
        shown = cv2.resize(image.permute(1, 2, 0).flip(-1).numpy(), (128, 128), interpolation=cv2.INTER_NEAREST)
        left = 2 + i * 132
        np.testing.assert_array_equal(picture[:128, left : left + 128], shown)
        expected = overlay(shown, one, low=low, high=high).astype(int)
        assert np.abs(picture[128:256, left : left + 128] - expected).max() <= 3  # one step of the colours


def test_modes_stay_as_they_are(tmp_path):
    runner = build_runner(config(tmp_path), ['val_dataloader'])
    runner.model.train()
    runner.model.backbone.stage1.eval()
    modes = [one.training for one in runner.model.modules()]
    hook = AttentionVisualizationHook(images=1)
    hook.before_train(runner)
    hook._draw(runner, 1)
    assert [one.training for one in runner.model.modules()] == modes and len(set(modes)) == 2 and WRITTEN


def test_tensorboard(tmp_path):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    cfg = config(tmp_path)
    cfg.visualizer.vis_backends = [dict(type='TensorboardVisBackend')]
    runner = build_runner(cfg, ['val_dataloader'])
    hook = AttentionVisualizationHook(images=2)
    hook.before_train(runner)
    hook._draw(runner, 3)
    runner.visualizer.close()
    events = accumulator.EventAccumulator(str(next(tmp_path.rglob('events.out*')).parent)).Reload()
    assert events.Tags()['images'] == ['attention_stage1.attention1', 'attention_stage2.attention1']
    (image,) = events.Images('attention_stage1.attention1')
    assert (image.step, image.width, image.height) == (3, 2 * (128 + 4), 2 * 128 + 20)


def test_images_are_chosen_once_by_the_seed(tmp_path):
    def chosen(seed):
        hook = AttentionVisualizationHook(images=4, seed=seed)
        hook.before_train(runner)
        return torch.stack([sample.packed['inputs'] for sample in hook.samples])

    cfg = config(tmp_path)
    runner = build_runner(cfg, ['val_dataloader'])
    assert torch.equal(chosen(0), chosen(0)) and not torch.equal(chosen(0), chosen(1))


def test_iterations_and_other_processes(tmp_path, monkeypatch):
    hook = dict(type='AttentionVisualizationHook', interval=3, by_epoch=False, images=1, reduction='strongest',
                layers=['backbone.stage1.attention1.map'])  # fmt: skip
    train(config(tmp_path / 'a', hook))  # two epochs of two iterations
    assert [(name, step) for name, step, _ in WRITTEN] == [('attention_stage1.attention1', 3)]
    WRITTEN.clear()
    monkeypatch.setattr(module, 'is_main_process', lambda: False)
    train(config(tmp_path / 'b', hook))
    assert not WRITTEN


@pytest.fixture
def warnings(monkeypatch):
    """What the runners of a test warn of."""
    said = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message, *args: said.append(message))
    return said


def test_what_is_wrong_is_a_warning_before_training(tmp_path, warnings):
    with pytest.raises(ValueError, match='interval is at least 1, not 0'):
        AttentionVisualizationHook(interval=0)
    runner = build_runner(config(tmp_path), ['val_dataloader'])
    whole, loop = runner.model, runner.val_loop
    for hook, model, val_loop, message in [
        (dict(images=[3, 400]), whole, loop, r'IndexError: images are of 0 to 39.*\[3, 400\]'),
        (dict(images=[]), whole, loop, 'IndexError: .*at least one'),
        (dict(layers=['backbone']), whole, loop, 'KeyError: No attention map named'),
        (dict(reduction='median'), whole, loop, "ValueError: .*not 'median'"),
        (dict(), whole.head, loop, 'ValueError: .*this model has no maps'),
        (dict(), whole, None, 'ValueError: .*there is none'),
    ]:
        runner.model, runner._val_loop = model, val_loop
        hook = AttentionVisualizationHook(**hook)
        hook.before_train(runner)
        assert re.fullmatch(f'AttentionVisualizationHook draws nothing from now on: .*{message}.*', warnings.pop())
        hook.after_train_epoch(runner)
    assert not warnings and not WRITTEN


def test_an_error_while_drawing_does_not_stop_the_training(tmp_path, monkeypatch, warnings):
    """One warning, and nothing more is drawn."""

    def fails(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Kept, 'add_image', fails)
    runner = train(config(tmp_path, dict(type='AttentionVisualizationHook', images=1), epochs=3))
    assert runner.epoch == 3
    (warning,) = [message for message in warnings if 'AttentionVisualizationHook' in message]
    assert 'No space left on device' in warning
