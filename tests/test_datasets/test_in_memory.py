import mmcv
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from mmresattn.datasets import InMemory

DIGITS = dict(type='ImageArrays', split='test', pipeline=[dict(type='PackInputs')])


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def test_batches_are_those_of_the_data_set():
    plain, memory = DATASETS.build(DIGITS), InMemory(DIGITS)
    assert len(memory) == len(plain) == 360 and memory.CLASSES == plain.CLASSES
    loader = Runner.build_dataloader(
        dict(
            batch_size=50,
            dataset=memory,
            sampler=dict(type='ReplaySampler', shuffle=True, seed=3),
            collate_fn=dict(type='one_batch'),
        )
    )
    batches = list(loader)
    order = list(loader.sampler)
    assert [len(batch['data_samples']) for batch in batches] == [50] * 7 + [10]
    for start, batch in zip(range(0, 360, 50), batches):
        expected = default_collate([plain[i] for i in order[start : start + 50]])
        assert torch.equal(batch['inputs'], expected['inputs']) and batch['inputs'].dtype == torch.uint8
        for ours, theirs in zip(batch['data_samples'], expected['data_samples']):
            assert torch.equal(ours.gt_label, theirs.gt_label)
    assert memory.get_gt_labels().tolist() == plain.get_gt_labels().tolist()


def test_a_batch_is_a_copy_and_a_sample_is_one_of_it():
    memory = InMemory(DIGITS)
    batch = memory.__getitems__([5, 5, 7])
    batch['inputs'].zero_()
    batch['data_samples'][0].set_gt_label(9)
    assert (
        memory[5]['inputs'].any()
        and memory[5]['data_samples'].gt_label == DATASETS.build(DIGITS)[5]['data_samples'].gt_label
    )


def test_other_fields_of_samples_stay():
    dataset = dict(DIGITS, pipeline=[dict(type='PackInputs', algorithm_keys=['weight'])])
    dataset = DATASETS.build(dataset)
    load = dataset.get_data_info
    dataset.get_data_info = lambda i: dict(load(i), weight=i / 2)
    batch = InMemory(dataset).__getitems__([4, 9])
    assert [sample.weight.item() for sample in batch['data_samples']] == [2, 4.5]


def changed(change):
    """Digits, of whose annotations ``change(i, info)`` makes others."""
    dataset = DATASETS.build(DIGITS)
    load = dataset.get_data_info
    dataset.get_data_info = lambda i: change(i, load(i))
    return dataset


def without_label(i, info):
    return {key: value for key, value in info.items() if key != 'gt_label'}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda i, info: dict(info, img=np.zeros((8, 9 if i == 11 else 8, 3), np.uint8)),
            r'inputs of sample 11 of the ImageArrays is \(3, 8, 9\), that of the first is \(3, 8, 8\)',
        ),
        (
            lambda i, info: dict(info, gt_label=[1, 2] if i == 3 else [1]),
            r'gt_label of sample 3 .* is \(2,\), .* \(1,\)',
        ),
        (
            lambda i, info: without_label(i, info) if i == 5 else info,
            r"sample 5 of the ImageArrays lacks \['gt_label'\]",
        ),
        (
            lambda i, info: without_label(i, info) if i == 0 else info,
            'gt_label of sample 1 .* that of the first is not th',
        ),
    ],
)
def test_samples_that_do_not_go_together_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        InMemory(changed(change))


def test_no_images():
    with pytest.raises(ValueError, match='holds no images'):
        InMemory(DATASETS.build(DIGITS).get_subset([]))


@pytest.mark.parametrize('collate', ['default_collate', 'pseudo_collate'])
def test_another_collate_function_says_which_one_is_needed(collate):
    loader = Runner.build_dataloader(
        dict(batch_size=4, dataset=InMemory(DIGITS), sampler=dict(type='DefaultSampler'), collate_fn=dict(type=collate))
    )
    with pytest.raises(TypeError, match="needs collate_fn=dict\\(type='one_batch'\\)"):
        next(iter(loader))


def test_broken_images_are_left_out(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    for i, image in enumerate(images):
        (tmp_path / 'ab'[i % 2]).mkdir(exist_ok=True)
        mmcv.imwrite(image, str(tmp_path / 'ab'[i % 2] / f'{i}.png'))
    for name in ('a/0.png', 'b/3.png'):  # the first one too
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50])
    pipeline = [dict(type='LoadCheckedImage', skip_broken=True), dict(type='PackInputs')]
    memory = InMemory(dict(type='CustomDataset', data_prefix=str(tmp_path), pipeline=pipeline))
    assert sorted(path[-7:] for path in memory.broken_images) == ['a/0.png', 'b/3.png']
    assert memory.get_gt_labels().tolist() == [0, 0, 1, 1] and len(memory) == 4
    expected = torch.from_numpy(images[[2, 4, 1, 5]]).permute(0, 3, 1, 2)
    assert torch.equal(memory.images, expected)
