import os
import re
import signal
import time

import pytest
import torch
from mmengine.dist import get_rank
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mmresattn.apis import latest_checkpoint
from tests.conftest import ROOT, Script
from tools import train as train_tool

# Everything random that training knows: shuffling, augmentation in two workers, mixup in the main process.
CONFIG = """
_base_ = '{root}/configs/resattn/attention56_digits.py'
arch = dict(
    _delete_=True, base='attention56-cifar', channels=(8, 8, 8), stem_channels=8, modules=(1, 1, 0),
    poolings=(1, 1, 1), units_after=(0, 0, 0), t=1, bottom_units=1
)
model = dict(
    backbone=dict(arch=arch),
    head=dict(in_channels=8),
    train_cfg=dict(augments=dict(type='Mixup', alpha=1.0)),
)
train_pipeline = [
    dict(type='ReplaySeed'),
    dict(type='Resize', scale=(16, 16)),
    dict(type='RandomCrop', crop_size=16, padding=4),
    dict(type='RandomErasing', erase_prob=0.5, mode='rand'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=32, num_workers=2, dataset=dict(indices=330, pipeline=train_pipeline))
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', T_max=30, by_epoch=False)
"""
EPOCHS = """
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=3)
"""
# Saved in the middle of an epoch of 10 iterations.
MID_EPOCH = (
    EPOCHS
    + """
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=5))
"""
)
ITERATIONS = """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=30, val_interval=1000)
train_dataloader['sampler'] = dict(infinite=True)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=5))
log_processor = dict(by_epoch=False)
"""

# The same with images in memory, whole batches augmented in the main process, and bfloat16.
IN_MEMORY = """
load_pipeline = [dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=32,
    drop_last=True,
    collate_fn=dict(type='one_batch'),
    sampler=dict(type='ReplaySampler', shuffle=True),
    dataset=dict(
        _delete_=True,
        type='InMemory',
        dataset=dict(type='ImageArrays', data='digits', split='train', indices=330, pipeline=load_pipeline),
    ),
)
data_preprocessor = dict(
    type='BatchTransformPreprocessor',
    batch_transforms=[dict(type='BatchRandomCrop'), dict(type='BatchRandomErasing')],
)
optim_wrapper = dict(type='AutocastOptimWrapper')
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=3)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=5))
"""


def write(tmp_path, text):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(root=ROOT) + text)
    return path


@pytest.mark.parametrize('kind', [MID_EPOCH, IN_MEMORY], ids=['middle-of-an-epoch', 'in-memory'])
def test_killed_and_resumed_is_uninterrupted_bit_for_bit(tmp_path, kind):
    """With checkpoints of whole epochs and in a loop of iterations, see test_engine/test_stop_hooks.py."""
    command = ('tools/train.py', write(tmp_path, kind), '--work-dir')
    uninterrupted = Script(*command, tmp_path / 'a')
    killed = Script(*command, tmp_path / 'b')
    last = tmp_path / 'b/last_checkpoint'  # which is written when the checkpoint is complete
    while not (last.exists() and last.read_text().endswith('iter_15.pth')):
        assert killed.process.is_alive(), killed.output[-3000:]
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)  # with its workers
    assert killed.wait() == -signal.SIGKILL and not (tmp_path / 'b/iter_30.pth').exists()
    output = Script(*command, tmp_path / 'b', '--resume').finish()
    assert re.search(r'resumed epoch: [1-9]', output)
    uninterrupted.finish()
    a, b = (torch.load(tmp_path / run / 'iter_30.pth', weights_only=True) for run in 'ab')
    assert a['meta']['iter'] == b['meta']['iter'] == 30
    assert a['state_dict'].keys() == b['state_dict'].keys()
    assert all(torch.equal(a['state_dict'][key], b['state_dict'][key]) for key in a['state_dict'])
    momenta = [
        [state['momentum_buffer'] for state in checkpoint['optimizer']['state'].values()] for checkpoint in (a, b)
    ]
    assert momenta[0] and all(torch.equal(x, y) for x, y in zip(*momenta))


def test_the_newest_whole_checkpoint_is_found(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for second, name in enumerate(('epoch_10.pth', 'epoch_9.pth', 'best_epoch_3.pth')):  # by time, not by name
        torch.save(torch.rand(1000), tmp_path / name)
        os.utime(tmp_path / name, (second, second))
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_9.pth')
    torn = (tmp_path / 'epoch_9.pth').read_bytes()[:-100]
    (tmp_path / 'epoch_11.pth').write_bytes(torn)
    (tmp_path / 'last_checkpoint').write_text('')
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_9.pth')


@HOOKS.register_module(force=True)  # pytest may import a file twice
class DumpOfTest(Hook):
    """Saves the weights of every process and how many images it has had."""

    priority = 'LOWEST'

    def before_train_iter(self, runner, batch_idx, data_batch):
        self.seen = getattr(self, 'seen', 0) + len(data_batch['data_samples'])

    def after_train_epoch(self, runner):
        ema = next(hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook))
        state = {'model': runner.model.module.state_dict(), 'ema': ema.state_dict(), 'seen': self.seen}
        torch.save(state, f'{runner.work_dir}/rank{get_rank()}.pth')


def train(*args):
    torch.set_num_threads(1)
    train_tool.main(['--launcher', 'pytorch', *args])


def test_two_processes_of_torchrun_agree(tmp_path):
    """They are started as torchrun does, by gloo, but forked from the server of tests/conftest.py."""
    config = write(
        tmp_path,
        EPOCHS.replace('max_epochs=3, val_interval=3', 'max_epochs=1, val_interval=1')
        + "custom_hooks = [dict(type='ReplayHook'), dict(type='SyncSavedBuffersHook'), dict(type='DumpOfTest'),\n"
        + "                dict(type='EMAHook', momentum=0.1, update_buffers=True)]\n",
    )
    launch = LaunchConfig(1, 1, nproc_per_node=2, rdzv_backend='c10d', rdzv_endpoint='localhost:0',
                          start_method='forkserver')  # fmt: skip
    elastic_launch(launch, train)(str(config), '--work-dir', str(tmp_path / 'work'))
    (log,) = (tmp_path / 'work').rglob('*.log')
    assert 'accuracy/top1' in log.read_text()
    ranks = [torch.load(tmp_path / 'work' / f'rank{rank}.pth', weights_only=True) for rank in (0, 1)]
    assert [rank['seen'] for rank in ranks] == [160, 160]  # of 165 each: the last batch is dropped
    for kind in ('model', 'ema'):
        models = [rank[kind] for rank in ranks]
        assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    checkpoint = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=True)['state_dict']
    assert all(torch.equal(ranks[0]['ema'][key], checkpoint[key]) for key in checkpoint)  # MMEngine saves the average
    assert any(not torch.equal(ranks[0]['model'][key], checkpoint[key]) for key in checkpoint)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['configs/resattn/attention56_imagenet.py'], r'imagenet/train, which does not exist.*\n.*one folder of image'),
        (['configs/resattn/attention56_cifar100.py'], r'cifar100/train, which does not exist'),
        (['configs/resattn/attention56_digits.py', '--resume', 'none.pth'], '[Tt]here is no checkpoint none.pth'),
        (['configs/resattn/attention57.py'], r'attention57.py'),
        (['configs/resattn/attention56_digits.py', '--cfg-options', 'model.backbone.arch=attention57'],
         "Unknown architecture 'attention57'"),
        (['configs/resattn/attention56_digits.py', '--cfg-options', 'train_dataloader.sampler.infinite=True'],
         'EpochBasedTrainLoop needs .*infinite=False'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_training(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.setenv('MMRESATTN_DATA', str(tmp_path / 'none'))
    monkeypatch.chdir(ROOT)
    with pytest.raises(Exception, match=message):
        train_tool.main([args[0], '--work-dir', str(tmp_path), *args[1:]])
    assert 'Epoch(train)' not in ''.join(capsys.readouterr())
