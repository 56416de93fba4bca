import argparse
import re

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from mmresattn.apis import add_common_arguments, load_config, read_config
from mmresattn.datasets import KeepInMemory
from tests.conftest import ROOT
from tools.analysis_tools import get_flops

CONFIG = ROOT / 'configs/photos/plain_efficientnet-lite0.py'


def write(folder, classes):
    """Photographs of random sizes, in folders of classes."""
    draw = np.random.default_rng(0)
    for name, number in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(number):
            height, width = draw.integers(20, 40, 2)
            pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f'{i}.jpg')


def split(root, name, **options):
    return DATASETS.build(dict(type='PhotoFolder', data_root=str(root), split=name, pipeline=[], **options))


def paths(dataset):
    return {dataset.get_data_info(i)['img_path'] for i in range(len(dataset))}


def test_split_folders_and_odd_files(tmp_path):
    for name, numbers in dict(train=(3, 1), val=(1, 2), test=(2, 0)).items():
        write(tmp_path / name, dict(zip(('cat', 'Dog'), numbers)))
    (tmp_path / 'train/cat/more').mkdir()
    (tmp_path / 'train/cat/0.jpg').rename(tmp_path / 'train/cat/more/PHOTO.JPG')
    (tmp_path / 'train/cat/notes.txt').write_text('no photograph')
    (tmp_path / 'train/.cache').mkdir()
    (tmp_path / 'train/cat/.hidden.jpg').write_text('')
    (tmp_path / 'train/labels.csv').write_text('')
    train, val, test = (split(tmp_path, name) for name in ('train', 'val', 'test'))
    assert train.CLASSES == val.CLASSES == test.CLASSES == ('Dog', 'cat')
    assert (len(train), len(val), len(test)) == (4, 3, 2)
    assert train.get_gt_labels().tolist() == [0, 1, 1, 1] and test.get_gt_labels().tolist() == [1, 1]
    assert str(tmp_path / 'train/cat/more/PHOTO.JPG') in paths(train)


@pytest.mark.parametrize('inside', ['train', ''], ids=['train', 'classes alone'])
def test_validation_images_are_held_out_where_there_are_none(tmp_path, inside):
    write(tmp_path / inside, dict(many=20, few=3, single=1))
    train, val, test = (split(tmp_path, name, held_out=0.2) for name in ('train', 'val', 'test'))
    assert np.bincount(val.get_gt_labels()).tolist() == [1, 4]  # few, many
    assert np.bincount(train.get_gt_labels()).tolist() == [2, 16, 1]  # few, many, single
    assert not paths(train) & paths(val) and paths(test) == paths(val)
    before = paths(val)
    Image.new('RGB', (20, 20)).save(tmp_path / inside / 'many/added.jpg')
    assert len(before & paths(split(tmp_path, 'val', held_out=0.2))) >= 4


def test_folders_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='(?s)photos does not exist.*data_root=FOLDER'):
        split(tmp_path / 'photos', 'train')
    write(tmp_path / 'val', dict(cat=1))
    write(tmp_path / 'test', dict(cat=1))
    with pytest.raises(FileNotFoundError, match=r"has the folders \['test', 'val'\]"):
        split(tmp_path, 'train')
    write(tmp_path / 'train', dict(cat=1))
    with pytest.raises(FileNotFoundError, match=r"train has the folders \['cat'\]"):
        split(tmp_path, 'train')
    write(tmp_path / 'train', dict(dog=0))
    write(tmp_path / 'val', dict(bird=1))
    with pytest.raises(ValueError, match=r"val has folders of classes that the training images lack: \['bird'\]"):
        split(tmp_path, 'val')
    with pytest.raises(ValueError, match="split is one of .*'validation'"):
        split(tmp_path, 'validation')


def test_number_of_classes_comes_from_the_folder_on_the_command_line(tmp_path):
    write(tmp_path, dict(a=1, b=1, c=1))
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_common_arguments(parser)
    cfg = load_config(parser.parse_args([str(CONFIG), '--cfg-options', f'data_root={tmp_path}']))
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 3
    for name in ('train', 'val', 'test'):
        assert cfg[f'{name}_dataloader'].dataset.data_root == str(tmp_path)
    digits = ROOT / 'configs/resattn/attention56_cifar10.py'
    cfg = load_config(parser.parse_args([str(digits), '--cfg-options', f'data_root={tmp_path}']))
    assert cfg.train_dataloader.dataset.dataset.data_root == cfg.test_dataloader.dataset.data_root == str(tmp_path)
    assert cfg.model.head.num_classes == 10


def test_tools_that_need_no_data_read_the_classes_where_there_are_some(tmp_path, capsys):
    pytest.importorskip('timm')
    missing = dict(data_root=str(tmp_path / 'missing'))
    assert read_config(CONFIG, missing, needs_data=False).model.head.num_classes == 10  # as it is written
    with pytest.raises(FileNotFoundError, match='missing'):
        read_config(CONFIG, missing)
    write(tmp_path / 'photos', dict(a=1, b=1, c=1))
    counted = []
    for folder in ('missing', 'photos'):
        get_flops.main([str(CONFIG), '--shape', '64', '--cfg-options', f'data_root={tmp_path / folder}'])
        counted.append(int(re.search(r'Parameters +([\d,]+)', capsys.readouterr().out)[1].replace(',', '')))
    assert counted[0] - counted[1] == 7 * (1280 + 1)  # a row of the classifier per class


def test_images_are_decoded_once_and_broken_ones_replaced(tmp_path):
    write(tmp_path, dict(a=4, b=4))
    (tmp_path / 'a/0.jpg').write_bytes(b'no image')
    load = [dict(type='LoadCheckedImage', skip_broken=True), dict(type='Resize', scale=(8, 8))]
    keep = dict(type='KeepInMemory', transforms=load)
    dataset = DATASETS.build(
        dict(type='PhotoFolder', data_root=str(tmp_path), split='train', held_out=0.25, pipeline=[keep])
    )
    first = [dataset[i] for i in range(len(dataset))]
    transform = next(t for t in dataset.pipeline.transforms if isinstance(t, KeepInMemory))
    for path in tmp_path.rglob('*.jpg'):
        if path.name != '0.jpg':
            path.unlink()
    for sample in first:
        results = dict(img_path=sample['img_path'], gt_label=sample['gt_label'], sample_idx=5)
        again = transform(results)
        assert (again['img'] == sample['img']).all() and again['img'].shape == (8, 8, 3)
        assert again['sample_idx'] == 5 and again['ori_shape'] == sample['ori_shape'] != (8, 8)
        again['img'][:] = 0  # what later transforms write stays outside
        assert (transform(results)['img'] == sample['img']).all()
