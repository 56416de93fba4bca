"""Data that is not there, or does not fit the model, is said at once, not after minutes of building."""

import os
from collections.abc import Iterator, Sequence
from itertools import combinations

from mmengine.config import Config

FOLDERS = """\
Expected one folder of images for each class:
    {root}/train/<class>/*
    {root}/{other}/<class>/*
Put or link it there (ln -s /where/it/is {root}), or set MMRESATTN_DATA to the folder that holds `{name}`."""


def innermost_data_sets(dataset: dict) -> Iterator[dict]:
    """The configs of the data sets inside wrappers such as ConcatDataset and RepeatDataset."""
    inner = dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else [])
    if not inner:
        yield dataset
    for one in inner:
        yield from innermost_data_sets(one)


def _paths(dataset: dict, kind: str) -> Iterator[str]:
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or (kind == 'ImageNet' and dataset.get('split')) or ''
    for part in [*(prefix.values() if isinstance(prefix, dict) else [prefix]), dataset.get('ann_file')]:
        if part:  # a root alone may be one into which the data set will be downloaded
            yield os.path.join(root, part)


def _check_labels(path: str, num_classes: int) -> None:
    """Check the labels in a list of images, the last word of each line."""
    with open(path, encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            label = line.strip().rpartition(' ')[2]
            if not label.isdecimal() or int(label) >= num_classes:
                raise ValueError(
                    f'{path}, line {number}: {line.strip()!r} must end in a label from 0 to {num_classes - 1}, for the '
                    f'{num_classes} classes of the model (num_classes of its head).'
                )


def check_data(cfg: Config, loaders: Sequence[str]) -> None:
    """Check that the folders and files which a config reads are there, and that labels fit each other and the model.

    Labels that are names of folders or lines of a list are checked; a list only where the model says its classes.

    Args:
        cfg (Config): The config.
        loaders (Sequence[str]): The dataloaders in use, of ``train_dataloader``, ``val_dataloader`` and
            ``test_dataloader``.

    Raises:
        FileNotFoundError: If one is missing. The message says where and in which layout to put it.
        ValueError: If there are more classes than the model has, a label is none of its classes, or data sets differ
            in their classes, so that one number would mean two things.
    """
    head = (cfg.get('model') or {}).get('head') or {}
    num_classes = head.get('num_classes') if isinstance(head, dict) else None
    found: list[tuple[str, list[str]]] = []
    for loader in loaders:
        for dataset in innermost_data_sets((cfg.get(loader) or {}).get('dataset') or {}):
            kind = dataset.get('type', '')
            kind = kind.split('.')[-1] if isinstance(kind, str) else kind.__name__
            for path in _paths(dataset, kind):
                if '://' in path or os.path.exists(os.path.expanduser(path)):
                    continue
                message = f'{loader} reads {os.path.abspath(path)}, which does not exist.'
                root = (dataset.get('data_root') or '').rstrip('/')
                if kind in ('CustomDataset', 'ImageNet') and root:
                    other = 'val' if kind == 'ImageNet' else 'test'
                    message += '\n' + FOLDERS.format(root=root, name=os.path.basename(root), other=other)
                raise FileNotFoundError(message)
            if kind not in ('CustomDataset', 'ImageNet') or not dataset.get('with_label', True):
                continue
            *_, last = [dataset.get('data_root') or '', *_paths(dataset, kind)]  # the list, or the folder of folders
            last = os.path.expanduser(last)
            if dataset.get('ann_file') and isinstance(num_classes, int) and os.path.isfile(last):
                _check_labels(last, num_classes)
            elif not dataset.get('ann_file') and kind == 'CustomDataset' and os.path.isdir(last):
                classes = sorted(entry.name for entry in os.scandir(last) if entry.is_dir())
                found.append((loader, classes))
                if isinstance(num_classes, int) and len(classes) > num_classes:
                    raise ValueError(
                        f'{loader} has {len(classes)} folders of classes in {last}, and the model {num_classes} '
                        'classes: set num_classes in model.head and data_preprocessor, or take away what is no class.'
                    )
    for (one, names), (other, others) in combinations(found, 2):
        if differing := sorted({*names} ^ {*others}):
            raise ValueError(
                f'{one} and {other} differ in their folders of classes ({", ".join(differing[:5])}'
                f'{", ..." if len(differing) > 5 else ""}), which are numbered in alphabetical order: a number would '
                'mean two classes. Give both the same folders; one may be empty.'
            )
