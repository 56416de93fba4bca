import hashlib

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from sklearn.datasets import load_digits

from mmresattn.datasets import ImageArrays

CIFAR_LIKE = dict(
    images=np.random.default_rng(0).integers(0, 256, (50, 6, 8, 3), dtype=np.uint8),
    labels=np.arange(50) % 2,
    classes=np.array(['cat', 'dog']),
)


@pytest.fixture
def npz(tmp_path):
    def write(**changes):
        path = tmp_path / 'arrays.npz'
        arrays = {**CIFAR_LIKE, **changes}
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
        return str(path)

    return write


def test_digits_are_those_of_scikit_learn():
    dataset, digits = ImageArrays(), load_digits()
    assert len(dataset) == 1797 and dataset.CLASSES == tuple('0123456789')
    for i in (0, 1000, 1796):
        sample = dataset[i]
        assert sample['img'].shape == (8, 8, 3) and sample['img'].dtype == np.uint8
        assert np.abs(sample['img'][..., 1].astype(float) * 16 / 255 - digits.images[i]).max() < 0.04
        assert sample['gt_label'] == digits.target[i]


def test_the_held_out_fifth_is_fixed_stratified_and_apart():
    train, test = ImageArrays(split='train'), ImageArrays(split='test')
    assert (len(train), len(test)) == (1437, 360)
    assert set(np.bincount(test.get_gt_labels())) <= {35, 36, 37}
    # Which they are does not change from release to release.
    ink = [int(test[i]['img'].astype(int).sum()) for i in range(len(test))]
    assert hashlib.sha256(str(ink).encode()).hexdigest()[:16] == '2160a91cf10bbd60'
    pixels = [{sample['img'].tobytes() for sample in dataset} for dataset in (train, test)]
    assert len(pixels[0] | pixels[1]) == len({sample['img'].tobytes() for sample in ImageArrays()})


def test_npz_is_read_as_bgr(npz):
    dataset = DATASETS.build(dict(type='ImageArrays', data=npz()))
    assert np.array_equal(dataset[7]['img'], CIFAR_LIKE['images'][7][..., ::-1])
    assert dataset[7]['gt_label'] == 1 and dataset.CLASSES == ('cat', 'dog')
    assert dataset[7]['img_shape'] == dataset[7]['ori_shape'] == (6, 8)


def test_the_pipeline_of_mmpretrain_takes_it(npz):
    pipeline = [
        dict(type='mmpretrain.RandomCrop', crop_size=6),
        dict(type='mmpretrain.RandomFlip', prob=1.0),
        dict(type='mmpretrain.PackInputs'),
    ]
    sample = ImageArrays(npz(), pipeline=pipeline)[3]
    assert sample['inputs'].shape == (3, 6, 6) and sample['inputs'].dtype == torch.uint8
    assert sample['data_samples'].gt_label.item() == 1


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(images=CIFAR_LIKE['images'].astype(float)), r'float64 of shape \(50, 6, 8, 3\); expected uint8'),
        (dict(images=CIFAR_LIKE['images'][..., :2]), r'expected uint8 of \(N, H, W, 3\)'),
        (dict(labels=np.arange(49)), r'50 images but labels int64 of \(49,\)'),
        (dict(labels=np.full(50, 0.5)), 'labels float64'),
        (dict(labels=np.full(50, 2)), 'from 0 to 1'),
        (dict(labels=np.full(50, -1)), 'from 0 to 1'),
        (dict(classes=None), 'arrays images .* classes'),
        (dict(classes=np.array('cat')), r'arrays images .* classes \(K,\)'),
        (dict(labels=np.array(['2020-01-01'] * 50, 'datetime64[D]')), 'labels datetime64'),
    ],
)
def test_arrays_of_another_form(npz, changes, message):
    with pytest.raises(ValueError, match=message):
        ImageArrays(npz(**changes))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*data is 'digits' or an .npz"):
        ImageArrays(str(tmp_path / 'none.npz'))
    (tmp_path / 'text.npz').write_text('images')
    with pytest.raises(ValueError, match='must be an .npz file'):
        ImageArrays(str(tmp_path / 'text.npz'))
    whole = tmp_path / 'whole.npz'
    np.savez(whole, **CIFAR_LIKE)
    for name, content in (('truncated.npz', whole.read_bytes()[:-100]), ('empty.npz', b'')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match='must be an .npz file'):
            ImageArrays(str(tmp_path / name))
    np.savez(tmp_path / 'pickled.npz', **{**CIFAR_LIKE, 'classes': np.array([print, print], dtype=object)})
    with pytest.raises(ValueError, match='must be an .npz file'):
        ImageArrays(str(tmp_path / 'pickled.npz'))
    with pytest.raises(ValueError, match="'train', 'test' or None, not 'val'"):
        ImageArrays(split='val')


def test_findings_K4_9_damaged_arrays_are_named(tmp_path):
    whole = tmp_path / 'whole.npz'
    np.savez_compressed(whole, **CIFAR_LIKE)
    content, rng = whole.read_bytes(), np.random.default_rng(0)
    damaged = tmp_path / 'damaged.npz'
    refused = 0
    for place in rng.integers(0, len(content), 80):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            ImageArrays(str(damaged), serialize_data=False)
        except ValueError as error:
            assert 'damaged.npz' in str(error)
            refused += 1
    assert refused > 60
    np.save(tmp_path / 'array.npy', CIFAR_LIKE['images'])
    (tmp_path / 'array.npy').rename(tmp_path / 'array.npz')
    with pytest.raises(ValueError, match='array.npz'):
        ImageArrays(str(tmp_path / 'array.npz'))
