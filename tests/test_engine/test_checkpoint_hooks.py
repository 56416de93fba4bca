import os
import re
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from kill_training import die_at
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from safetensors.torch import save_file
from torch import nn

from mmresattn.apis import latest_checkpoint
from mmresattn.engine import LoadWeightsHook
from mmresattn.engine.checkpoint_hooks import WholeFilesBackend
from mmresattn.weights import lock_work_dir, read_checkpoint


class Net(BaseModel):
    class_weights = ('head',)

    def __init__(self, classes=3, width=20_000):
        super().__init__()
        self.body = nn.Linear(2, width)
        self.head = nn.Linear(width, classes)

    def forward(self, inputs, mode='tensor'):
        scores = self.head(self.body(inputs))
        return dict(loss=scores.square().mean()) if mode == 'loss' else [scores]


class Epoch(BaseMetric):
    """Grows with the epochs, so that every one is the best so far."""

    value = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        Epoch.value += 1
        return dict(value=Epoch.value)


@contextmanager
def file_size(limit):
    """No file of this process may grow beyond: the kernel refuses in the middle of a write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def runner(work_dir, epochs=3, hook='WholeCheckpointHook', model=None, hooks=(), **settings):
    torch.manual_seed(0)
    data = [torch.ones(2) * i for i in range(4)]
    sampler = dict(type='DefaultSampler', shuffle=False)
    loader = dict(batch_size=2, dataset=data, sampler=sampler, num_workers=0, collate_fn=collate)
    top = {key: settings.pop(key) for key in ('load_from', 'resume') if key in settings}
    return Runner(
        model or Net(),
        str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=Evaluator([Epoch()]),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-6)),
        default_hooks=dict(checkpoint=dict(type=hook, interval=1, **settings), logger=None),
        custom_hooks=[*hooks],
        experiment_name=f'{work_dir.parent.name}{work_dir.name}{epochs}{top}',
        randomness=dict(seed=0),
        log_level='ERROR',
        cfg=dict(top),
        **top,
    )


def collate(images):
    return dict(inputs=torch.stack(images))


def names(folder):
    return sorted(path.name for path in folder.iterdir() if 'pth' in path.name)


class Full(Hook):
    """From an epoch on, counted from 1, files may not grow beyond a checkpoint's half."""

    def __init__(self, epoch):
        self.epoch = epoch

    def before_train_epoch(self, runner):
        if runner.epoch + 1 == self.epoch:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize('keep', [1, 2])
def test_a_full_disk_is_said_and_leaves_the_last_checkpoint(tmp_path, keep):
    with file_size(resource.getrlimit(resource.RLIMIT_FSIZE)[0]):
        with pytest.raises(OSError, match=r'epoch_3.pth was not saved: it takes 0.4\d MiB, and [\d.,]+ MiB are free in '
                                          r'.*Make room.*continue with --resume') as error:  # fmt: skip
            runner(tmp_path, hooks=[Full(3)], max_keep_ckpts=keep).train()
    assert error.value.errno == error.value.__cause__.errno
    assert names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth'][-keep:]
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_2.pth')
    assert read_checkpoint(tmp_path / 'epoch_2.pth')['meta']['epoch'] == 2
    resumed = runner(tmp_path, resume=True, load_from=str(tmp_path / 'epoch_2.pth'), max_keep_ckpts=keep)
    resumed.train()
    assert names(tmp_path) == ['epoch_2.pth', 'epoch_3.pth'][-keep:]


def test_the_best_checkpoint_stays_until_the_next_is_whole(tmp_path):
    Epoch.value = 0

    class FullForTheBest(Hook):
        def before_val_epoch(self, runner):  # after the checkpoint of the epoch
            if runner.epoch == 2:
                Full(runner.epoch + 1).before_train_epoch(runner)

    with file_size(resource.getrlimit(resource.RLIMIT_FSIZE)[0]), pytest.raises(OSError, match='best_value_epoch_2'):
        runner(tmp_path, hooks=[FullForTheBest()], save_best='value', rule='greater').train()
    assert names(tmp_path) == ['best_value_epoch_1.pth', 'epoch_1.pth', 'epoch_2.pth']


def test_outdated_checkpoints_are_removed(tmp_path):
    Epoch.value = 0
    runner(tmp_path, epochs=5, max_keep_ckpts=2, save_best='value', rule='greater').train()
    assert names(tmp_path) == ['best_value_epoch_5.pth', 'epoch_4.pth', 'epoch_5.pth']
    resumed = runner(
        tmp_path, 7, resume=True, load_from=str(tmp_path / 'epoch_5.pth'), max_keep_ckpts=2, save_best='value',
        rule='greater',
    )  # fmt: skip
    resumed.train()
    assert names(tmp_path) == ['best_value_epoch_7.pth', 'epoch_6.pth', 'epoch_7.pth']


def test_what_is_saved_is_what_mmengine_saves(tmp_path):
    states = []
    for hook in ('CheckpointHook', 'WholeCheckpointHook'):
        runner(tmp_path / hook, hook=hook).train()
        states.append(read_checkpoint(tmp_path / hook / 'epoch_3.pth'))
        assert (tmp_path / hook / 'last_checkpoint').read_text() == str(tmp_path / hook / 'epoch_3.pth')
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(a, b) for a, b in zip(*(state['state_dict'].values() for state in states)))


@pytest.mark.parametrize(
    ('place', 'died', 'left', 'newest'),
    [
        ('begin', signal.SIGKILL, [], 'old'),
        ('middle', signal.SIGXFSZ, [r'\.epoch_2.pth.*\.part'], 'old'),
        ('unnamed', signal.SIGKILL, [r'\.epoch_2.pth.*\.part'], 'old'),
        ('unnoted', signal.SIGKILL, ['epoch_2.pth'], 'new'),
    ],
)
def test_a_process_that_dies_while_it_saves_leaves_a_whole_checkpoint(tmp_path, monkeypatch, place, died, left, newest):
    """The process is a real one; it saves as the hook does: the file, then its name in last_checkpoint."""
    torch.save({'old': torch.zeros(50_000)}, tmp_path / 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    torch.save({'new': torch.ones(50_000)}, tmp_path / 'new')
    content = (tmp_path / 'new').read_bytes()
    monkeypatch.setenv('CHECKPOINT_BYTES', str(len(content)))
    child = os.fork()
    if not child:
        try:
            die_at(place, 0)
            WholeFilesBackend().put(content, tmp_path / 'epoch_2.pth')
            Path(tmp_path, 'last_checkpoint').open('w').write(str(tmp_path / 'epoch_2.pth'))
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == died
    found = [name for name in names(tmp_path) if name != 'epoch_1.pth']
    assert len(found) == len(left) and all(map(re.fullmatch, left, found))
    if place == 'middle':
        assert (tmp_path / found[0]).stat().st_size == len(content) // 2
    found = latest_checkpoint(str(tmp_path))
    assert list(torch.load(found, weights_only=True)) == [newest]
    # The next attempt is not disturbed by what was left.
    WholeFilesBackend().put(content, tmp_path / 'epoch_2.pth')
    lock_work_dir(tmp_path)
    assert names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']
    assert (tmp_path / 'epoch_2.pth').read_bytes() == content


def save(tmp_path, model):
    path = str(tmp_path / 'weights.pth')
    torch.save(model.state_dict(), path)
    return path


def test_new_classes_are_for_fine_tuning(tmp_path):
    path = save(tmp_path, Net(classes=5))
    with pytest.raises(RuntimeError, match=r'weights.pth does not fit the model: 2 of its 4 parameters and .*'
                                           r'2 of another shape \(head.weight \(5, 20000\) for \(3, 20000\), head.bias '
                                           r'\(5,\) for \(3,\)\)'):  # fmt: skip
        runner(tmp_path / 'a', load_from=path, hooks=[LoadWeightsHook()]).train()
    tuned = runner(tmp_path / 'b', epochs=1, load_from=path, hooks=[LoadWeightsHook(fine_tune=True)])
    head = tuned.model.head.weight.clone()
    tuned.load_or_resume()
    assert torch.equal(tuned.model.body.weight, torch.load(path)['body.weight'])
    assert torch.equal(tuned.model.head.weight, head)


@pytest.mark.parametrize('fine_tune', [False, True])
def test_another_net_is_refused(tmp_path, fine_tune):
    other = nn.ModuleDict(dict(backbone=nn.Linear(2, 3), head=nn.Linear(20_000, 3)))
    path = save(tmp_path, other)
    with pytest.raises(RuntimeError, match=r'2 not in the file \(body.weight, body.bias\); 2 not in the model '
                                           r'\(backbone.weight, backbone.bias\). Give the config'):  # fmt: skip
        runner(tmp_path / 'a', load_from=path, hooks=[LoadWeightsHook(fine_tune)]).train()


def test_a_run_is_not_resumed_from_weights_alone(tmp_path):
    path = str(tmp_path / 'net.safetensors')
    save_file(Net().state_dict(), path)
    runner(tmp_path / 'a', epochs=1, load_from=path, hooks=[LoadWeightsHook()]).load_or_resume()
    with pytest.raises(RuntimeError, match='safetensors cannot be resumed from: it lacks message_hub, meta'):
        runner(tmp_path / 'b', load_from=path, resume=True, hooks=[LoadWeightsHook()]).train()
