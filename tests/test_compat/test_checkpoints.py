import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.registry import PARAM_SCHEDULERS

from mmresattn.compat.checkpoints import allow_mmengine_checkpoints, method


def test_history_buffers_round_trip_with_weights_only(tmp_path):
    hub = MessageHub.get_instance('test_checkpoints')
    for value in (3.0, 1.0, np.float64(2.0), np.float32(6.0)):
        hub.update_scalar('train/loss', value)
    hub.update_info('iter', np.int64(7))
    torch.save(hub.state_dict(), tmp_path / 'hub.pth')
    allow_mmengine_checkpoints()  # a second time
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
        method(owner, name)
