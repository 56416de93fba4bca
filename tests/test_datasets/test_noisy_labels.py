import pickle
import random

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.datasets import CustomDataset, MultiLabelDataset
from mmpretrain.datasets.base_dataset import BaseDataset
from scipy.stats import chi2
from torch.utils.data import DataLoader

from mmresattn.datasets import ImageArrays, NoisyLabels
from mmresattn.datasets.noisy_labels import draw_labels
from mmresattn.engine import ReplaySampler

DIGITS = dict(type='ImageArrays', data='digits')
CLEAN = ImageArrays()
PACK = [dict(type='mmpretrain.PackInputs')]


class Labels(BaseDataset):
    """Labels without images."""

    def __init__(self, labels, classes='abcdefghij', **kwargs):
        self.labels = labels
        super().__init__('', metainfo=classes and dict(classes=tuple(classes)), **kwargs)

    def load_data_list(self):
        return [dict(gt_label=label) for label in self.labels]


TEN = Labels(torch.randint(10, (50_000,), generator=torch.Generator().manual_seed(0)).tolist())


# The least and the most noise of table 5 with the rows of Q: diagonal, and everything else.
@pytest.mark.parametrize(('r', 'rest'), [(0.9, 0.01111), (0.3, 0.07778)])
def test_the_drawn_matrix_is_that_of_the_paper(r, rest):
    counts = NoisyLabels(TEN, clean_ratio=r).transition_matrix()
    rows = counts.sum(axis=1, keepdims=True)  # 10, 1
    assert np.array_equal(rows[:, 0], np.bincount(TEN.labels))
    q = np.where(np.eye(10), r, rest)
    assert np.abs(q.sum(axis=1) - 1).max() < 1e-4
    assert (np.abs(counts - rows * q) < 5 * np.sqrt(rows * q * (1 - q))).all()
    # Every other class is equally likely: 9 counts in each of 10 rows, with their sums given.
    others = counts[~np.eye(10, dtype=bool)].reshape(10, 9)
    expected = others.mean(axis=1, keepdims=True)
    assert 1e-3 < chi2.sf(((others - expected) ** 2 / expected).sum(), df=10 * 8) < 1 - 1e-3


def test_draws_of_neighbours_are_independent():
    clean = np.array(TEN.labels)
    changed = draw_labels(clean, 10, 0.5, seed=0) != clean
    assert abs((changed[1:] & changed[:-1]).mean() - 0.25) < 5 * 0.0025
    step = (draw_labels(clean, 10, 0.0, seed=0) - clean) % 10
    assert abs((step[1:] == step[:-1]).mean() - 1 / 9) < 5 * 0.0015


def test_all_and_none():
    assert np.array_equal(NoisyLabels(CLEAN, 1).get_gt_labels(), CLEAN.get_gt_labels())
    assert (NoisyLabels(CLEAN, 0).get_gt_labels() != CLEAN.get_gt_labels()).all()
    two = Labels([0, 1, 1, 0, 1], classes='ab')
    assert NoisyLabels(two, 0).get_gt_labels().tolist() == [1, 0, 0, 1, 0]


def test_the_draw_is_a_function_of_seed_and_place():
    labels = NoisyLabels(CLEAN, 0.5).get_gt_labels()
    assert np.array_equal(NoisyLabels(DIGITS, 0.5, seed=0).get_gt_labels(), labels)
    assert np.array_equal(NoisyLabels(CLEAN.get_subset(100), 0.5).get_gt_labels(), labels[:100])
    assert (NoisyLabels(CLEAN, 0.5, seed=1).get_gt_labels() != labels).mean() > 0.5
    # Which they are does not change from release to release.
    assert draw_labels(np.arange(10), 10, 0.5, seed=0).tolist() == [0, 1, 2, 9, 5, 5, 8, 7, 8, 9]


def test_a_label_kept_is_kept_with_less_noise():
    clean = np.array(TEN.labels)
    kept = [draw_labels(clean, 10, r, seed=3) == clean for r in (0.3, 0.5, 0.7, 0.9)]
    assert all((less <= more).all() for less, more in zip(kept, kept[1:]))


def test_random_states_are_left_alone():
    def states():
        return pickle.dumps((random.getstate(), np.random.get_state(), torch.get_rng_state().numpy()))

    before = states()
    dataset = NoisyLabels(CLEAN, 0.3)
    dataset[5], dataset.transition_matrix()
    assert states() == before
    np.random.seed(1), random.seed(1), torch.manual_seed(1)
    assert np.array_equal(NoisyLabels(CLEAN, 0.3).get_gt_labels(), dataset.get_gt_labels())


def test_everything_but_the_label_is_as_before():
    noisy = NoisyLabels(CLEAN, 0.5)
    truth = CLEAN.get_gt_labels()
    assert len(noisy) == len(CLEAN) and noisy.metainfo == CLEAN.metainfo and noisy.CLASSES == CLEAN.CLASSES
    assert noisy.class_to_idx == CLEAN.class_to_idx
    labels = noisy.get_gt_labels()
    for i in (0, 7, 1796, -1):
        info, before = noisy.get_data_info(i), CLEAN.get_data_info(i)
        assert info['clean_label'] == before['gt_label'] == truth[i] and info['gt_label'] == labels[i]
        assert noisy.get_cat_ids(i) == [labels[i]]
        assert np.array_equal(info['img'], before['img']) and info['sample_idx'] == before['sample_idx']
    assert np.array_equal(noisy.transition_matrix().sum(axis=1), np.bincount(truth))
    assert 'clean_label' not in CLEAN.get_data_info(0)
    text = repr(noisy)
    assert 'Labels of: \tImageArrays' in text and 'Clean ratio: \t0.5' in text and 'categories: \t10' in text


def see(results):
    """A pipeline may do anything to the labels it is given."""
    results['img'][0, 0] = results['gt_label'], results.pop('clean_label'), 0
    return results


def test_samples_have_the_noisy_and_the_true_label():
    noisy = NoisyLabels(ImageArrays(pipeline=[see, *PACK]), 0.5)
    labels = noisy.get_gt_labels()
    for i in range(50):
        sample = noisy[i]
        assert sample['data_samples'].gt_label.tolist() == [labels[i]]
        assert sample['data_samples'].clean_label.tolist() == [CLEAN[i]['gt_label']]
        assert sample['inputs'][:2, 0, 0].tolist() == [labels[i], CLEAN[i]['gt_label']]
    assert noisy[3]['data_samples'].sample_idx == 3
    unpacked = NoisyLabels(CLEAN, 0.5)[3]
    assert (unpacked['gt_label'], unpacked['clean_label']) == (labels[3], CLEAN[3]['gt_label'])


@pytest.mark.parametrize('serialize_data', [True, False])
def test_an_image_in_place_of_a_broken_one_comes_with_its_own_label(serialize_data):
    pixels = {sample['img'].tobytes(): i for i, sample in enumerate(CLEAN)}

    def broken(results):
        return None if results['sample_idx'] < 100 else results

    noisy = NoisyLabels(ImageArrays(pipeline=[broken, *PACK], serialize_data=serialize_data), 0.3)
    labels, others = noisy.get_gt_labels(), 0
    for i in range(90, 110):
        sample = noisy[i]
        found = pixels[sample['inputs'].permute(1, 2, 0).numpy().tobytes()]
        others += found != i
        assert sample['data_samples'].sample_idx == found
        assert sample['data_samples'].gt_label.tolist() == [labels[found]]
        assert sample['data_samples'].clean_label.tolist() == [CLEAN[found]['gt_label']]
    assert others == 10


REPLAY = [dict(type='ReplaySeed'), dict(type='mmpretrain.RandomCrop', crop_size=8, padding=4), *PACK]


def loaded(dataset, workers=0, skip=0, **kwargs):
    sampler = ReplaySampler(dataset, seed=0)
    sampler.skip(skip)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers, collate_fn=list, **kwargs)
    samples = [sample for batch in loader for sample in batch]
    return (
        torch.stack([sample['inputs'] for sample in samples]),
        [sample['data_samples'].gt_label.item() for sample in samples],
        [sample['data_samples'].clean_label.item() for sample in samples],
        [sample['data_samples'].sample_idx for sample in samples],
    )


def test_replay_and_workers():
    """The same labels and the same augmentation with any number of workers, forked or spawned, and after a resume."""
    dataset = NoisyLabels(ImageArrays(pipeline=REPLAY, indices=12), 0.5)
    images, labels, truth, order = loaded(dataset)
    assert order == [int(draw) for draw in ReplaySampler(dataset, seed=0)] and sorted(order) == list(range(12))
    assert labels == [dataset.get_gt_labels()[i] for i in order] and labels != truth
    unwrapped = ImageArrays(pipeline=REPLAY, indices=12)
    plain = [unwrapped[draw] for draw in ReplaySampler(dataset, seed=0)]
    assert torch.equal(images, torch.stack([sample['inputs'] for sample in plain]))
    assert truth == [sample['data_samples'].gt_label.item() for sample in plain]
    again = loaded(pickle.loads(pickle.dumps(dataset)), workers=2)  # as a worker that is spawned receives it
    assert torch.equal(again[0], images) and again[1:] == (labels, truth, order)
    resumed = loaded(NoisyLabels(ImageArrays(pipeline=REPLAY, indices=12), 0.5), skip=8)
    assert torch.equal(resumed[0], images[8:]) and resumed[1] == labels[8:]


def test_other_wrappers_go_around_it():
    clean = ImageArrays(pipeline=PACK)
    noisy = dict(type='NoisyLabels', dataset=clean, clean_ratio=0.5)
    labels = DATASETS.build(noisy).get_gt_labels()

    def first(dataset, i):
        return dataset[i]['data_samples'].gt_label.item()

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        twice = DATASETS.build(dict(type='RepeatDataset', dataset=noisy, times=2))
        assert len(twice) == 2 * 1797 and first(twice, 1797 + 5) == first(twice, 5) == labels[5]
        both = DATASETS.build(dict(type='ConcatDataset', datasets=[clean, noisy]))
        assert first(both, 1797 + 5) == labels[5]
        fold = DATASETS.build(dict(type='KFoldDataset', dataset=noisy, fold=1, num_splits=3))
        assert np.array_equal(fold.get_gt_labels(), np.delete(labels, np.s_[599:1198])) and fold.CLASSES is not None
        assert fold.dataset.transition_matrix().sum() == len(fold) == 1198
        balanced = DATASETS.build(dict(type='ClassBalancedDataset', dataset=noisy, oversample_thr=0.2))
        repeated = [balanced.get_cat_ids(i) for i in range(len(balanced))]
        assert repeated == [[labels[i]] for i in balanced.repeat_indices]
        assert first(balanced, 100) == labels[balanced.repeat_indices[100]]


def test_folders_of_images(tmp_path):
    for i in range(40):
        folder = tmp_path / ('cat', 'dog', 'eel')[i % 3]
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f'{i}.png'), np.full((4, 4, 3), i % 3, np.uint8))  # the class itself
    pipeline = [dict(type='LoadImageFromFile'), *PACK]
    dataset = dict(type='mmpretrain.CustomDataset', data_prefix=str(tmp_path), pipeline=pipeline, lazy_init=True)
    noisy = NoisyLabels(dataset, 0.5)
    assert noisy.CLASSES == ('cat', 'dog', 'eel')
    samples = [noisy[i] for i in range(40)]
    truth = [sample['inputs'][0, 0, 0].item() for sample in samples]
    assert [sample['data_samples'].clean_label.item() for sample in samples] == truth
    assert [sample['data_samples'].gt_label.item() for sample in samples] == noisy.get_gt_labels().tolist() != truth


def test_the_noise_is_logged_once(monkeypatch):
    lines = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'info', lines.append)
    dataset = NoisyLabels(CLEAN, 0.7, seed=5)
    dataset.full_init(), dataset[0]
    changed = int((dataset.get_gt_labels() != CLEAN.get_gt_labels()).sum())
    assert 0.25 < changed / 1797 < 0.35
    assert lines == [
        f'NoisyLabels: noise level 0.3000 asked for, {changed / 1797:.4f} drawn: {changed} of 1797 labels of the '
        'ImageArrays changed, seed 5.'
    ]


@pytest.mark.parametrize(
    ('ratio', 'message'),
    [
        (-0.1, 'clean_ratio is -0.1; expected 0 to 1'),
        (90, 'clean_ratio is 90; .* 10 % is clean_ratio=0.9'),
        (float('nan'), 'clean_ratio is nan'),
    ],
)
def test_ratio_out_of_range(ratio, message):
    with pytest.raises(ValueError, match=message):
        NoisyLabels(CLEAN, ratio)


def multi_label(tmp_path):
    data = [dict(img_path='1.png', gt_label=[0, 2]), dict(img_path='2.png', gt_label=[1])]
    file = tmp_path / 'labels.pkl'
    file.write_bytes(pickle.dumps(dict(metainfo=dict(classes=('a', 'b', 'c')), data_list=data)))
    return MultiLabelDataset(str(file))


def without_labels(tmp_path):
    cv2.imwrite(str(tmp_path / '1.png'), np.zeros((4, 4, 3), np.uint8))
    return CustomDataset(str(tmp_path), with_label=False, metainfo=dict(classes=('a', 'b')))


@pytest.mark.parametrize(
    ('dataset', 'error', 'message'),
    [
        (lambda _: Labels([0, 0], classes='a'), ValueError, r"Labels has the classes \('a',\), .* two or more"),
        (lambda _: Labels([0, 1], classes=None), ValueError, r'no classes in its metainfo.*classes=\[...\]'),
        (multi_label, ValueError, r'Sample 0 of the MultiLabelDataset has the gt_label \[0, 2\]; expected one integer'),
        (lambda _: Labels([1, np.eye(10)[0]]), ValueError, r'Sample 1 .* gt_label array.* expected one integer'),
        (lambda _: Labels([1, 0.5]), ValueError, r'Sample 1 .* gt_label 0.5; expected one integer'),
        (without_labels, ValueError, 'Sample 0 of the CustomDataset has the gt_label None; expected one integer'),
        (
            lambda _: Labels([3, 10]),
            ValueError,
            'Sample 1 of the Labels has the gt_label 10; expected one integer from 0 to 9',
        ),
        (
            lambda _: Labels([3, -1]),
            ValueError,
            'Sample 1 of the Labels has the gt_label -1; expected one integer from 0 to 9',
        ),
        (lambda _: dict(DIGITS, test_mode=True), ValueError, 'ImageArrays has test_mode=True, .* training set alone'),
        (lambda _: dict(type='RepeatDataset', dataset=DIGITS, times=2), TypeError, 'not RepeatDataset. Put it inside'),
        (lambda _: [1, 2], TypeError, 'takes a data set of MMPretrain .* not list'),
    ],
)
def test_data_sets_of_another_form(tmp_path, dataset, error, message):
    with pytest.raises(error, match=message):
        NoisyLabels(dataset(tmp_path), 0.5)
