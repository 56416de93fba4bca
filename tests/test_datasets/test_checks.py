import pytest
from mmengine.config import Config

from mmresattn.datasets import check_data


def check(**dataset):
    """A missing training set is no concern of a test."""
    train = dict(type='CustomDataset', data_prefix='/none')
    cfg = Config(dict(train_dataloader=dict(dataset=train), val_dataloader=dict(dataset=dataset)))
    check_data(cfg, ['val_dataloader', 'test_dataloader'])


def test_a_missing_folder_is_said_with_its_layout(tmp_path):
    root = tmp_path / 'imagenet'
    with pytest.raises(FileNotFoundError) as error:
        check(type='ImageNet', data_root=str(root), split='val')
    message = str(error.value)
    assert f'val_dataloader reads {root}/val, which does not exist' in message
    assert f'{root}/train/<class>/*' in message and f'{root}/val/<class>/*' in message
    assert 'MMRESATTN_DATA to the folder that holds `imagenet`' in message
    (root / 'val').mkdir(parents=True)
    check(type='ImageNet', data_root=str(root), split='val')


@pytest.mark.parametrize('wrap', [lambda d: d, lambda d: dict(type='RepeatDataset', dataset=d),
                                  lambda d: dict(type='ConcatDataset', datasets=[d, d])])  # fmt: skip
def test_missing_folders_inside_of_wrappers(tmp_path, wrap):
    inner = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='train')
    with pytest.raises(FileNotFoundError, match='train, which does not exist'):
        check(**wrap(inner))
    (tmp_path / 'train').mkdir()
    check(**wrap(inner))


def test_annotation_files_and_dicts_of_prefixes(tmp_path):
    dataset = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='a.json', data_prefix=dict(img='images'))
    (tmp_path / 'images').mkdir()
    with pytest.raises(FileNotFoundError, match='a.json, which does not exist'):
        check(**dataset)
    (tmp_path / 'a.json').touch()
    check(**dataset)


def test_what_needs_no_file_passes():
    check(type='ImageArrays', data='digits', split='train')
    check(type='CustomDataset', data_root='s3://bucket', data_prefix='train')
    check(type='CIFAR10', data_root='/none', split='train')  # which MMPretrain downloads
    check_data(Config(dict()), ['train_dataloader'])
