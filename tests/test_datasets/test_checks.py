import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmresattn.datasets import ImageFolders, check_data


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
    with pytest.raises(
        ValueError, match=r'train_dataloader has 3 folders of .*train \(a, b, c\), but the model has 2 cl'
    ):
        check_tree(num_classes=2)


def test_folders_that_would_be_numbered_differently(tmp_path):
    check_tree = tree(tmp_path, 'abcd', 'acd')
    with pytest.raises(ValueError, match=r'train_dataloader and val_dataloader differ .* \(b\)'):
        check_tree(num_classes=4)
    (tmp_path / 'test' / 'b').mkdir()  # empty
    check_tree(num_classes=4)


def listed(root, content, kind='ImageFolders', num_classes=3, **kwargs):
    """Check and load a list of images."""
    (root / 'images').mkdir(exist_ok=True)
    (root / 'list.txt').write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset = dict(type=kind, data_root=str(root), data_prefix='images', ann_file='list.txt', **kwargs)
    cfg = dict(train_dataloader=dict(dataset=dict(dataset)), model=dict(head=dict(num_classes=num_classes)))
    check_data(Config(cfg), ['train_dataloader'])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = DATASETS.build(dict(dataset, serialize_data=False))  # which collects garbage, for seconds
    return [(info['img_path'].removeprefix(f'{root}/images/'), info.get('gt_label')) for info in data]


@pytest.mark.parametrize('line', ['b.png 3', 'b.png -1', 'b.png', 'b.png x', 'b.png 1.0', 'b.png,1', '0'])
def test_labels_of_a_list_that_are_no_classes(tmp_path, line):
    samples = [('a b.png', 0), ('c.png', 2)]
    assert listed(tmp_path, 'a b.png 0\nc.png 2\n', 'CustomDataset') == samples
    assert listed(tmp_path, 'a b.png 0\nc.png 2\n') == samples
    with pytest.raises(ValueError, match=r"list.txt, line 2: '.*' must be .* and a label from 0 to 2, for 3 classes"):
        listed(tmp_path, f'a b.png 0\n{line}\nc.png 2\n')
    assert len(listed(tmp_path, f'a b.png\n{line}\nc.png\n', with_label=False)) == 3


CARELESS = {
    'mark': '\ufeffcat/ä.png 0\ncat/b.png 1\n'.encode(),
    'utf-16': 'cat/ä.png 0\ncat/b.png 1\n'.encode('utf-16'),
    'backslashes': 'cat\\ä.png 0\r\ncat\\b.png 1\r\n'.encode(),
    'blank lines and tabs': '\ncat/ä.png\t0\n  \ncat/b.png  1 \n\n'.encode(),
}


@pytest.mark.parametrize('content', CARELESS.values(), ids=CARELESS)
def test_findings_K4_3_careless_lists_are_read(tmp_path, content):
    assert listed(tmp_path, content) == [('cat/ä.png', 0), ('cat/b.png', 1)]
    with pytest.raises(ValueError, match='CustomDataset would misread .*list.txt, line 1 .*ImageFolders'):
        listed(tmp_path, content, 'CustomDataset')


def test_findings_K4_3_K4_4_lists_that_are_none_are_named(tmp_path):
    for content, message in (
        ('a.png 0\nä.png 1\n'.encode('latin-1'), 'list.txt, line 2: this is not utf-8.* Save the file as UTF-8'),
        (b'', 'list.txt is empty'),
        (b'\n \n', 'list.txt is empty'),
        (b'{"a.png": 0, "b.png": 1}', 'list.txt is JSON'),
        (b'[["a.png", 0]]', 'list.txt is JSON'),
        (b'x' * 10_000, r'line 1: .{,120} \.\.\..{,120}$'),
    ):
        with pytest.raises(ValueError, match=message) as error:
            listed(tmp_path, content)
        assert len(str(error.value)) < 500
    (tmp_path / 'list.txt').unlink()
    with pytest.raises(FileNotFoundError, match='list.txt, which does not exist. It is the ann_file') as error:
        check(type='ImageFolders', data_root=str(tmp_path), data_prefix='images', ann_file='list.txt')
    assert '<class>' not in str(error.value)


def photographs(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_findings_K4_2_hidden_folders_are_no_classes(tmp_path):
    photographs(tmp_path, 'cat/a.png', 'dog/b.png', '.ipynb_checkpoints/c.png', 'cat/.ipynb_checkpoints/a.png')
    cfg = dict(type='ImageFolders', data_root=str(tmp_path))
    check(**cfg)
    data = ImageFolders(data_root=str(tmp_path), serialize_data=False)
    assert data.CLASSES == ('cat', 'dog') and list(data.get_gt_labels()) == [0, 1]
    for kind in ('CustomDataset', 'ImageNet'):
        with pytest.raises(ValueError, match=rf'{kind} would take .ipynb_checkpoints .*ImageFolders'):
            check(type=kind, data_root=str(tmp_path))


def test_findings_K4_5_classes_name_the_folders(tmp_path):
    photographs(tmp_path, 'cat/a.png', 'dog/b.png')
    data = ImageFolders(data_root=str(tmp_path), classes=['dog', 'cat'], serialize_data=False)
    assert {info['img_path'][-9:]: data.CLASSES[info['gt_label']] for info in data} == {
        'cat/a.png': 'cat',
        'dog/b.png': 'dog',
    }
    check(type='ImageFolders', data_root=str(tmp_path), classes=['dog', 'cat'])
    with pytest.raises(ValueError, match='alphabetically, not in the order of `classes`.*ImageFolders'):
        check(type='CustomDataset', data_root=str(tmp_path), metainfo=dict(classes=['dog', 'cat']))
    for kind in ('CustomDataset', 'ImageFolders'):
        with pytest.raises(ValueError, match=r"without a folder: \['cow'\], folders without a name: \['cat', 'dog'\]"):
            check(type=kind, data_root=str(tmp_path), classes=['cow'])
    cfg = Config(dict(model=dict(head=dict(num_classes=3)), train_dataloader=dict(dataset=dict(
        type='ImageFolders', data_root=str(tmp_path), classes=['cat', 'dog']))))  # fmt: skip
    with pytest.raises(ValueError, match='train_dataloader has 2 names in `classes`, but the model has 3 classes'):
        check_data(cfg, ['train_dataloader'])
    with pytest.raises(ValueError, match=r'list.txt, line 2: .* label from 0 to 1, for 2 classes'):
        listed(tmp_path, 'a.png 0\nb.png 2', num_classes=None, classes=['cat', 'dog'])


def test_findings_K3_1_steps_that_would_leave_the_map_behind(tmp_path):
    load = dict(type='LoadAttentionMap', map_root=str(tmp_path))
    dataset = dict(type='ImageFolders', data_root=str(tmp_path))
    check(**dataset, pipeline=[dict(type='RandomFlip'), load, dict(type='ColorJitter')])
    for step in (dict(type='mmpretrain.RandomFlip'), dict(type='torchvision/RandomCrop'),
                 dict(type='RandomApply', transforms=dict(type='ResizeEdge'))):  # fmt: skip
        with pytest.raises(ValueError, match='comes after LoadAttentionMap and would move images without'):
            check(**dataset, pipeline=[load, step])
