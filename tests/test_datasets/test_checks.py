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


def tree(root, train, test):
    for split, classes in (('train', train), ('test', test)):
        for name in classes:
            (root / split / name).mkdir(parents=True)
    loaders = {
        f'{loader}_dataloader': dict(dataset=dict(type='CustomDataset', data_root=str(root), data_prefix=split))
        for loader, split in (('train', 'train'), ('val', 'test'))
    }
    return lambda **head: check_data(
        Config(dict(loaders, model=dict(head=head))), ['train_dataloader', 'val_dataloader']
    )


def test_more_folders_than_classes_of_the_model(tmp_path):
    check_tree = tree(tmp_path, 'abc', 'abc')
    check_tree(num_classes=3)
    check_tree(num_classes=dict(colour=2, shape=1))  # of several tasks
    with pytest.raises(ValueError, match=r'train_dataloader has 3 folders of classes in .*train, and the model 2 clas'):
        check_tree(num_classes=2)


def test_folders_that_would_be_numbered_differently(tmp_path):
    check_tree = tree(tmp_path, 'abcd', 'acd')
    with pytest.raises(ValueError, match=r'train_dataloader and val_dataloader differ .* \(b\), .* alphabetical'):
        check_tree(num_classes=4)
    (tmp_path / 'test' / 'b').mkdir()  # empty
    check_tree(num_classes=4)


@pytest.mark.parametrize('line', ['b.png 3', 'b.png -1', 'b.png', 'b.png x', 'b.png 1.0', ''])
def test_labels_of_a_list_that_are_no_classes(tmp_path, line):
    (tmp_path / 'images').mkdir()
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='images', ann_file='list.txt')
    cfg = dict(train_dataloader=dict(dataset=dataset), model=dict(head=dict(num_classes=3)))
    (tmp_path / 'list.txt').write_text('a b.png 0\nc.png 2\n')
    check_data(Config(cfg), ['train_dataloader'])
    (tmp_path / 'list.txt').write_text(f'a b.png 0\n{line}\nc.png 2\n')
    with pytest.raises(ValueError, match=r"list.txt, line 2: '.*' must end in a label from 0 to 2, for the 3 classes"):
        check_data(Config(cfg), ['train_dataloader'])
    dataset['with_label'] = False
    check_data(Config(cfg), ['train_dataloader'])
