from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from mmresattn.datasets import ImageArrays
from mmresattn.engine import ReplayAspectRatioBatchSampler, ReplaySampler
from mmresattn.engine.replay import Draw


@pytest.mark.parametrize('shuffle', [True, False])
def test_draws_what_mmengine_draws(shuffle):
    ours, theirs = (sampler(range(10), shuffle=shuffle, seed=3) for sampler in (ReplaySampler, DefaultSampler))
    for epoch in (0, 5):
        ours.set_epoch(epoch)
        theirs.set_epoch(epoch)
        draws = list(ours)
        assert draws == list(theirs) and [draw.key for draw in draws] == [(3, epoch)] * 10


@pytest.mark.parametrize('skipped', [0, 7, 10, 23, 640_000 * 10 + 3])
def test_infinite_draws_go_on_after_any_number(skipped):
    def draws(start, number):
        sampler = ReplaySampler(range(10), seed=1, infinite=True)
        sampler.skip(start)
        return [(int(draw), draw.key) for draw in islice(sampler, number)]

    base = skipped // 10 * 10
    assert draws(skipped, 25) == draws(base, 35)[skipped - base : skipped - base + 25]
    if skipped < 100:
        assert draws(skipped, 25) == draws(0, skipped + 25)[skipped:]


class Shapes(list):
    """Images by width, all 10 high."""

    def get_data_info(self, index):
        return dict(width=self[index], height=10)


@pytest.mark.parametrize('drop_last', [True, False])
def test_batches_by_aspect_ratio_are_those_of_mmdetection_from_any_batch(drop_last):
    theirs = pytest.importorskip('mmdet.datasets.samplers.batch_sampler').AspectRatioBatchSampler
    images = Shapes([5, 20, 10, 9, 30, 1, 2, 3, 15, 7, 11])

    def batches(skipped=0, epoch=2):
        sampler = ReplaySampler(images, seed=3)
        sampler.set_epoch(epoch)
        ours = ReplayAspectRatioBatchSampler(sampler, 2, drop_last)
        ours.skip(skipped)
        return list(ours)

    expected = theirs(ReplaySampler(images, seed=3), 2, drop_last)
    expected.sampler.set_epoch(2)
    whole = list(expected)
    assert len(whole) == len(ReplayAspectRatioBatchSampler(expected.sampler, 2, drop_last)) == (5 if drop_last else 6)
    for skipped in range(len(whole) + 1):
        assert batches(skipped) == whole[skipped:]
    assert batches(epoch=0) != whole and all(draw.key == (3, 2) for batch in batches() for draw in batch)


def test_one_epoch_holds_every_sample_once():
    sampler = ReplaySampler(range(10), seed=1, infinite=True)
    first, second = (list(islice(sampler, 20))[i : i + 10] for i in (0, 10))
    assert sorted(first) == sorted(second) == list(range(10)) and first != second


PIPELINE = [
    dict(type='ReplaySeed'),
    dict(type='mmpretrain.RandomCrop', crop_size=8, padding=4),
    dict(type='mmpretrain.RandomErasing', erase_prob=1.0, mode='rand'),
    dict(type='mmpretrain.PackInputs'),
]


def loaded(workers, skip=0, epoch=0, seed=0):
    dataset = ImageArrays(pipeline=PIPELINE, indices=12)
    sampler = ReplaySampler(dataset, seed=seed)
    sampler.set_epoch(epoch)
    sampler.skip(skip)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers, collate_fn=lambda batch: batch)
    return torch.stack([sample['inputs'] for batch in loader for sample in batch])


def test_augmentation_depends_on_the_draw_alone():
    images = loaded(workers=0)
    assert torch.equal(loaded(workers=2), images)
    assert torch.equal(loaded(workers=2, skip=4), images[4:])
    for other in (loaded(workers=0, epoch=1), loaded(workers=0, seed=1)):
        assert not torch.equal(other, images)


def test_draws_of_one_image_differ_between_epochs():
    dataset = ImageArrays(pipeline=PIPELINE, indices=12)
    crops = [dataset[Draw.of(5, 0, epoch)]['inputs'] for epoch in range(4)]
    assert len({crop.numpy().tobytes() for crop in crops}) == 4


def test_samples_that_stand_in_for_broken_ones_depend_on_the_draw():
    """MMPretrain draws another index where the pipeline gives None, and a plain one."""

    class Broken:
        def __call__(self, results):
            return None if results['sample_idx'] == 5 else results

    dataset = ImageArrays(pipeline=[PIPELINE[0], Broken(), *PIPELINE[1:]], indices=12)
    first, again, other = (dataset[Draw.of(5, 0, epoch)]['inputs'] for epoch in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_findings_K4_7_samples_without_a_draw_pass():
    dataset = ImageArrays(pipeline=PIPELINE, indices=12)
    assert dataset[0]['inputs'].shape == (3, 8, 8)
    assert dataset[np.int64(0)]['data_samples'].gt_label == dataset[0]['data_samples'].gt_label


def test_another_sampler_is_named_in_training(monkeypatch):
    messages = []
    monkeypatch.setattr('mmresattn.engine.replay.print_log', lambda message, *args: messages.append(message))
    monkeypatch.setattr('mmresattn.engine.replay.get_worker_info', lambda: True)
    dataset = ImageArrays(pipeline=PIPELINE, indices=12)
    dataset[0], dataset[1]
    assert len(messages) == 1 and "type='ReplaySampler'" in messages[0]
    dataset[Draw.of(5, 0, 0)]
