import io
import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmresattn.weights import load_weights, read_checkpoint
from mmresattn.weights.safe_types import read_method


def test_history_buffers_round_trip_with_weights_only(tmp_path):
    hub = MessageHub.get_instance('test_checkpoints')
    for value in (3.0, 1.0, np.float64(2.0), np.float32(6.0)):
        hub.update_scalar('train/loss', value)
    hub.update_info('iter', np.int64(7))
    torch.save(hub.state_dict(), tmp_path / 'hub.pth')
    loaded = torch.load(tmp_path / 'hub.pth', weights_only=True)
    buffer = loaded['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer)
    assert (buffer.mean(), buffer.max(), buffer.min(), buffer.current()) == (3, 6, 1, 6)
    assert buffer.statistics('mean') == 3 and loaded['runtime_info']['iter'] == 7
    for ours, theirs in zip(buffer.data, hub.log_scalars['train/loss'].data):
        assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype


def test_names_of_numpy_1_are_read_too(tmp_path):
    torch.save(HistoryBuffer([1.0], [1]), tmp_path / 'numpy2.pth', _use_new_zipfile_serialization=False)
    old = (tmp_path / 'numpy2.pth').read_bytes().replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
    (tmp_path / 'numpy1.pth').write_bytes(old)
    assert torch.load(tmp_path / 'numpy1.pth', weights_only=True).mean() == 1


SCHEDULES = {
    'CosineRestart': dict(periods=[5, 5], restart_weights=[1, 0.5], eta_min=0),
    'CosineAnnealing': dict(T_max=5),
    'Exponential': dict(gamma=0.5),
    'MultiStep': dict(milestones=[2, 3]),
    'OneCycle': dict(eta_max=0.1, total_steps=10, anneal_strategy='linear'),
    'OneCycleLR': dict(eta_max=0.1, total_steps=10),
    'ReduceOnPlateau': dict(monitor='loss'),
    'Step': dict(step_size=2),
}


@pytest.mark.parametrize('name', PARAM_SCHEDULERS.module_dict)
def test_every_schedule_of_mmengine_round_trips(tmp_path, name):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    settings = [value for key, value in SCHEDULES.items() if name.startswith(key)]
    param_name = dict(param_name='lr') if name.endswith('ParamScheduler') else {}
    schedule = PARAM_SCHEDULERS.get(name)(optimizer, **(settings[-1] if settings else {}), **param_name)
    torch.save(schedule.state_dict(), tmp_path / 'schedule.pth')
    state = torch.load(tmp_path / 'schedule.pth', weights_only=True)
    assert state == schedule.state_dict()


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call

    def __call__(self):
        """Pickle only takes what can be called for a function; what is loaded is what the call gave."""


def hostile(tmp_path):
    """Two pickles that would create a file, and one that asks for an innocent attribute."""
    mark = tmp_path / 'mark'
    command = f'touch {mark}'
    rebuild = torch._tensor._rebuild_from_type_v2  # allowed, and a way to everything by its __builtins__
    builtins = Call(getattr, rebuild, '__builtins__')
    chain = Call(Call(getattr, builtins, 'get'), '__import__')
    return mark, {
        'os.system': Call(os.system, command),
        'getattr-to-builtins': Call(Call(getattr, Call(chain, 'os'), 'system'), command),
        'getattr-of-history-buffer': Call(getattr, HistoryBuffer, '__init__'),
    }


@pytest.mark.parametrize('name', ['os.system', 'getattr-to-builtins', 'getattr-of-history-buffer'])
def test_hostile_pickles_are_refused_and_run_nothing(tmp_path, name):
    mark, pickles = hostile(tmp_path)

    path = tmp_path / 'hostile.pth'
    torch.save({'state_dict': {}, 'message_hub': pickles[name]}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)  # as MMEngine does
    assert not mark.exists()


@pytest.mark.parametrize('name', ['os.system', 'getattr-to-builtins'])
def test_hostile_pickles_would_run_if_they_were_trusted(tmp_path, name):
    """Otherwise the test above would show nothing."""
    mark, pickles = hostile(tmp_path)
    path = tmp_path / 'hostile.pth'
    torch.save({'message_hub': pickles[name]}, path)
    torch.load(path, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize(('owner', 'name'), [(HistoryBuffer, '__init__'), (HistoryBuffer, 'update'), (os, 'system')])
def test_the_stand_in_for_getattr_knows_few_methods(owner, name):
    with pytest.raises(pickle.UnpicklingError, match='refused'):
        read_method(owner, name)


load = CheckpointLoader.load_checkpoint  # as MMEngine does, everywhere


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', ['os.system', 'getattr-to-builtins', 'getattr-of-history-buffer'])
def test_hostile_checkpoints_are_refused_by_name_unless_trusted(tmp_path, monkeypatch, name, zipped):
    mark, pickles = hostile(tmp_path)
    path = str(tmp_path / 'hostile.pth')
    torch.save({'state_dict': {}, 'message_hub': pickles[name]}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError) as error:
        load(path)
    message = str(error.value)
    assert (
        message.startswith(path)
        and 'it holds more than weights' in message
        and 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1' in message
    )
    assert 'weights_only' not in message.lower().replace('torch_force_no_weights_only_load', '')  # no bad advice
    assert not mark.exists()
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    load(path)
    assert mark.exists() == (name != 'getattr-of-history-buffer')


def whole(zipped=True):
    buffer = io.BytesIO()
    torch.save({'weight': torch.rand(1000)}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


TORN = {
    'half': whole()[:2000],
    'cut': whole()[:-100],
    'legacy': whole(zipped=False)[:2000],
    'empty': b'',
    'zeros': bytes(5000),
    'text': b'<html>404: not found</html>',
}


@pytest.mark.parametrize('name', TORN)
def test_torn_checkpoints_are_named(tmp_path, name):
    path = tmp_path / 'torn.pth'
    path.write_bytes(TORN[name])
    with pytest.raises(
        RuntimeError, match=rf'{path} \({len(TORN[name]):,} bytes\) is (damaged|not a checkpoint)'
    ) as error:
        load(str(path))
    assert 'weights_only=False' not in str(error.value)


def test_what_else_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match='There is no checkpoint .*none.pth'):
        load(str(tmp_path / 'none.pth'))
    torch.save([torch.rand(1)], tmp_path / 'list.pth')
    with pytest.raises(RuntimeError, match=r'list.pth \([\d,]+ bytes\) holds a list; a checkpoint is a dict'):
        load(str(tmp_path / 'list.pth'))


def test_whole_checkpoints_load(tmp_path):
    for zipped in (True, False):
        (tmp_path / 'whole.pth').write_bytes(whole(zipped))
        assert read_checkpoint(tmp_path / 'whole.pth')['state_dict']['weight'].shape == (1000,)


class Net(nn.ModuleDict):
    class_weights = ('head',)

    def __init__(self, classes=2):
        torch.manual_seed(0)
        super().__init__(dict(body=nn.BatchNorm1d(3), head=nn.Linear(3, classes)))


def test_weights_that_fit_are_loaded():
    given = Net()
    nn.init.uniform_(given['body'].weight)
    state = {name: value for name, value in given.state_dict().items() if 'num_batches' not in name}
    for checkpoint in (state, dict(state_dict=state)):
        model = Net()
        load_weights(model, checkpoint, 'file')
        assert torch.equal(model['body'].weight, given['body'].weight)


def test_weights_that_do_not_fit_are_counted_and_named():
    more = {f'more.{name}': torch.rand(1) for name in 'abcd'}
    state = {**Net(5).state_dict(), **more}
    del state['body.bias']
    with pytest.raises(RuntimeError) as error:
        load_weights(Net(), state, 'x.pth')
    assert str(error.value).startswith(
        'x.pth does not fit the model: 4 of its 7 parameters and buffers are in the file with the same shape. 1 not in '
        'the file (body.bias); 2 of another shape (head.weight (5, 3) for (2, 3), head.bias (5,) for (2,)); 4 not in '
        'the model (more.a, more.b, more.c and 1 more).'
    )
    for name in more:
        del state[name]
    with pytest.raises(RuntimeError, match=r'\. 1 not in the file \(body.bias\)\.'):
        load_weights(Net(), state, 'x.pth', fine_tune=True)
    load_weights(Net(), {**state, 'body.bias': torch.rand(3)}, 'x.pth', fine_tune=True)
