from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from mmresattn.engine import ChannelsLastWeightsHook, ReplayHook, ReplaySampler
from mmresattn.models import ResidualAttentionNet


def runner(loop_type, sampler, iteration=0, workers=0):
    """As much of a runner as the hook sees; the loop is a real one but for its construction."""
    loop = object.__new__(loop_type)
    loop.dataloader = DataLoader(range(10), batch_size=4, sampler=sampler, num_workers=workers)
    loop._iter, loop._epoch = iteration, 0
    return SimpleNamespace(train_loop=loop, seed=5, iter=iteration, logger=MMLogger.get_instance('hooks'))


@pytest.mark.parametrize('workers', [0, 2])
def test_iterations_resume_at_the_next_batch(workers):
    """MMEngine takes `iter` batches from the iterator and drops them; the ones after are those that come next."""
    run = runner(IterBasedTrainLoop, ReplaySampler(range(10), seed=5, infinite=True), 100_000, workers)
    ReplayHook().before_train(run)
    iterator = run.train_loop.dataloader_iterator
    assert {next(iterator) for _ in range(100_000)} == {None}
    resumed = torch.cat([next(iterator) for _ in range(5)])
    whole = ReplaySampler(range(10), seed=5, infinite=True)
    whole.skip(400_000)
    assert resumed.tolist() == [int(draw) for draw, _ in zip(whole, range(20))]


def test_an_epoch_that_was_saved_at_its_last_iteration_is_not_trained_again():
    """MMEngine counts the epoch only after its end: schedules, validation and the like, which are still to come."""
    run = runner(EpochBasedTrainLoop, ReplaySampler(range(10), seed=5), iteration=6)  # of 3 an epoch
    run.train_loop._epoch = 1
    ReplayHook().before_train(run)
    assert list(run.train_loop.dataloader) == []
    assert len(list(run.train_loop.dataloader)) == 3  # the next one is whole
    run.train_loop._epoch = 2  # saved by epoch
    ReplayHook().before_train(run)
    assert len(list(run.train_loop.dataloader)) == 3


def test_a_seed_that_was_resumed_reaches_the_sampler():
    run = runner(EpochBasedTrainLoop, ReplaySampler(range(10), seed=0))
    ReplayHook().before_train(run)
    assert run.train_loop.dataloader.sampler.seed == 5


def test_loops_and_samplers_that_do_not_go_together():
    for loop, infinite in ((EpochBasedTrainLoop, True), (IterBasedTrainLoop, False)):
        with pytest.raises(ValueError, match=f'{loop.__name__} needs .*infinite={not infinite}'):
            ReplayHook().before_train(runner(loop, ReplaySampler(range(10), seed=0, infinite=infinite)))


def test_another_sampler_is_warned_of(monkeypatch):
    run, said = runner(EpochBasedTrainLoop, DefaultSampler(range(10), seed=0)), []
    monkeypatch.setattr(run.logger, 'warning', said.append)
    ReplayHook().before_train(run)
    assert len(said) == 1 and 'DefaultSampler with BatchSampler cannot start' in said[0]


def test_draws_of_an_iteration_depend_on_it_alone():
    def draw(iteration):
        ReplayHook().before_train_iter(SimpleNamespace(seed=5, iter=iteration), batch_idx=0)
        return torch.rand(3).tolist()

    first = draw(7)
    assert draw(8) != first and draw(7) == first


def test_channels_last_changes_the_order_not_the_result():
    torch.manual_seed(0)
    model = ResidualAttentionNet(dict(base='attention56-cifar', channels=(8, 8, 8))).eval()
    image = torch.randn(2, 3, 16, 16)
    before = model(image)[0]
    ChannelsLastWeightsHook().before_run(SimpleNamespace(model=model))
    after = model(image)[0]
    assert after.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(before, after, atol=1e-5)
