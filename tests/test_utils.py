import random

import numpy as np
import torch

from mmresattn.utils import seed_by, time_in_turns


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_a_key_gives_one_state_to_all_three():
    seed_by('a', 0, 3, 7)
    first = draws()
    draws()
    seed_by('a', 0, 3, 7)
    assert draws() == first
    for stream, key in (('b', (0, 3, 7)), ('a', (0, 3)), ('a', (0, 3, 7, 0)), ('a', (3, 0, 7))):
        seed_by(stream, *key)
        assert not set(draws()) & set(first)


def test_neighbouring_keys_give_independent_states():
    """Means and correlations of first draws over 4,000 neighbouring keys, each within 4 standard errors."""
    sample = []
    for key in range(4000):
        seed_by('a', 0, 0, key)
        sample.append(draws())
    sample = np.array(sample)
    assert np.abs(sample.mean(0) - 0.5).max() < 4 * 12**-0.5 / 4000**0.5
    lagged = np.corrcoef(np.hstack([sample[1:], sample[:-1]]).T) - np.eye(6)
    assert np.abs(lagged).max() < 4 / 4000**0.5


def test_calls_take_turns_after_a_round_that_warms_up():
    order, ticks = [], iter(range(100))
    calls = {'a': lambda: order.append('a'), 'b': lambda: order.append('b')}
    assert time_in_turns(calls, rounds=2, repeats=2, clock=lambda: next(ticks)) == {'a': [1] * 4, 'b': [1] * 4}
    assert ''.join(order) == 3 * 'aabb'
