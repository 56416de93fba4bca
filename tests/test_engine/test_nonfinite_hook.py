import math
import re

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

from mmresattn.engine import NonFiniteLossHook, ReplayHook, ReplaySampler


class Middle(nn.Module):
    """A convolution, and an operation outside of any module below this one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.divisor = 1.0

    def forward(self, x):
        return self.norm(self.conv(x)) / self.divisor


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.middle = Middle()
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)
        self.loss = nn.CrossEntropyLoss()
        self.factor = 1.0
        self.seen = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        scores = self.fc(self.dropout(self.middle(self.stem(inputs.float()))).mean((2, 3)))
        self.seen.append(scores.detach().clone())
        if mode != 'loss':
            return scores
        labels = torch.cat([sample.gt_label for sample in data_samples])
        return dict(loss=self.loss(scores, labels) * self.factor, accuracy=(scores.argmax(1) == labels).float().mean())


class Images:
    def __init__(self, bad=None):
        self.bad = bad

    def __len__(self):
        return 24

    def __getitem__(self, index):
        image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(index))
        if index == self.bad:
            image[1, 2, 3] = math.inf
        sample = BaseDataElement(gt_label=torch.tensor([index % 2]))
        sample.set_metainfo(dict(img_path=f'{index}.png', img_shape=(8, 8)))
        return dict(inputs=image, data_samples=sample)


def collate(samples):
    return dict(
        inputs=torch.stack([sample['inputs'] for sample in samples]),
        data_samples=[sample['data_samples'] for sample in samples],
    )


class At(Hook):
    """Does something to the model before an iteration, counted from 1, and keeps the weights before every step."""

    def __init__(self, iteration, harm):
        self.iteration, self.harm, self.weights = iteration, harm, None

    def before_train_iter(self, runner, **kwargs):
        if runner.iter + 1 == self.iteration:
            self.harm(runner.model)
        self.weights = {name: value.clone() for name, value in runner.model.named_parameters()}


def train(tmp_path, harm=lambda model: None, at=5, bad=None, hook=True, **optim):
    """Three epochs of six iterations."""
    torch.manual_seed(0)
    images = Images(bad)
    keeper = At(at, harm)
    runner = Runner(
        Net(),
        str(tmp_path),
        train_dataloader=dict(
            batch_size=4, dataset=images, sampler=ReplaySampler(images, seed=0), num_workers=0, collate_fn=collate
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9), **optim),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=1)),
        custom_hooks=[ReplayHook(), keeper, *([NonFiniteLossHook()] if hook else [])],
        experiment_name=f'{tmp_path.name}{hook}',
        randomness=dict(seed=0),
        log_level='ERROR',
    )
    error = None
    try:
        runner.train()
    except FloatingPointError as raised:
        error = raised
    return runner, keeper, error


def break_weight(model):
    model.middle.conv.weight.data[1, 2, 0, 0] = math.nan


def break_operation(model):
    model.middle.divisor = 0.0


def break_loss(model):
    model.factor = 1e39  # more than float32 holds


def overflow(model):
    model.stem.weight.data.fill_(3e38)


CASES = {
    'weight': (break_weight, r'is middle.conv \(Conv2d\), whose weight held some before the step'),
    'operation': (break_operation, r'is middle \(Middle\), from finite values up to '),
    'overflow': (overflow, r'is stem \(Conv2d\), from finite values up to [\d.e+-]+, with finite weights up to 3e\+38'),
    'loss': (break_loss, r'is the whole model \(Net\), from finite'),
}


@pytest.mark.parametrize('name', CASES)
def test_the_step_and_the_first_module_are_named_and_the_state_is_saved(tmp_path, name):
    harm, cause = CASES[name]
    runner, keeper, error = train(tmp_path, harm)
    assert error is not None and runner.iter == 4
    message = str(error)
    assert 'The loss of iteration 5 (epoch 1) is not finite: loss ' in message
    assert re.search(cause, message), message
    path = tmp_path / 'nonfinite' / 'iter_5.pth'
    assert str(path) in message
    state = torch.load(path, weights_only=True)
    assert state['iteration'] == 5 and not math.isfinite(state['losses']['loss'])
    for key, value in keeper.weights.items():  # no step was taken with it
        assert torch.equal(state['state_dict'][key], value) or name == 'weight' and key == 'middle.conv.weight'
        assert torch.equal(dict(runner.model.named_parameters())[key].nan_to_num(7), value.nan_to_num(7))
    sampler = ReplaySampler(Images(), seed=0)
    drawn = list(sampler)[16:20]
    assert torch.equal(state['inputs'][0], torch.stack([Images()[i]['inputs'] for i in drawn]))
    assert [sample['img_path'] for sample in state['samples']] == [f'{i}.png' for i in drawn]
    assert [sample['gt_label'].item() for sample in state['samples']] == [i % 2 for i in drawn]
    # The step was run again as it was, dropout too.
    again, first = runner.model.seen[-1], runner.model.seen[-2]
    assert torch.equal(again.nan_to_num(7), first.nan_to_num(7))
    assert [path.name for path in tmp_path.glob('iter_*.pth')] == ['iter_4.pth']  # the last good one


def test_an_image_that_is_not_finite_is_named(tmp_path):
    order = list(ReplaySampler(Images(), seed=0))
    _, _, error = train(tmp_path, bad=order[9])
    assert 'iteration 3 (epoch 1)' in str(error)
    assert f'Images hold values that are not finite: {int(order[9])}.png.' in str(error)
    modules = torch.load(tmp_path / 'nonfinite' / 'iter_3.pth', weights_only=True)['modules']
    assert [module['name'] for module in modules[:2]] == ['data_preprocessor', 'stem']
    assert not modules[1]['finite_inputs'] and not modules[1]['weights']


def test_a_loss_without_a_step_stops_too(tmp_path):
    """Gradients of four steps are accumulated, so that none is taken at the third."""
    _, _, error = train(tmp_path, break_loss, at=3, accumulative_counts=4)
    assert 'iteration 3 (epoch 1)' in str(error)


def test_training_is_the_same_with_and_without(tmp_path):
    with_hook, _, error = train(tmp_path)
    without, _, _ = train(tmp_path, hook=False)
    assert error is None and not (tmp_path / 'nonfinite').exists()
    assert with_hook.iter == 18 and len(with_hook.model.seen) == 18
    for a, b in zip(with_hook.model.state_dict().values(), without.model.state_dict().values()):
        assert torch.equal(a, b)
    assert not with_hook.model._forward_hooks  # nothing stays behind
    assert not with_hook.optim_wrapper.optimizer._optimizer_step_pre_hooks
