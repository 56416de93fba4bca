"""Checks of the data of a config before anything is built."""

import os
from collections.abc import Iterator, Sequence
from itertools import combinations, zip_longest

from mmengine import list_from_file
from mmengine.config import Config

from ..utils import listed, type_name
from .attention_maps import moves_pixels
from .image_folders import check_class_names, class_folders, is_hidden
from .lists import read_image_list, read_lines

FOLDERS = """\
Expected one folder of images per class:
    {root}/train/<class>/*
    {root}/{other}/<class>/*
Put or link it there (ln -s /where/it/is {root}), or set MMRESATTN_DATA to the folder that holds `{name}`."""


def check_data(cfg: Config, loaders: Sequence[str]) -> None:
    """Check that the files which a config reads are there, and that labels fit each other and the model.

    Args:
        cfg (Config): The config.
        loaders (Sequence[str]): The dataloaders in use, of ``train_dataloader``, ``val_dataloader`` and
            ``test_dataloader``.

    Raises:
        FileNotFoundError: If a file or folder is missing. The message says where and in which layout to put it.
        ValueError: If a list, folders of classes, ``classes`` or the number of classes of the model do not fit
            together, if data sets number their classes differently, or if a step of a pipeline would move an image
            without its attention map.
    """
    head = (cfg.get('model') or {}).get('head') or {}
    num_classes = head.get('num_classes') if isinstance(head, dict) else None
    num_classes = num_classes if isinstance(num_classes, int) else None  # a dict of several tasks
    numbered: list[tuple[str, list[str]]] = []
    for loader, dataset in data_sets_of(cfg, loaders):
        check_files(loader, dataset)
        check_pipeline(loader, dataset)
        if classes := check_labels(loader, dataset, num_classes):
            numbered.append((loader, classes))
    for (first, names), (second, others) in combinations(numbered, 2):
        if names != others:
            differing = sorted({*names} ^ {*others})
            raise ValueError(
                f'{first} and {second} differ in their classes '
                f'({listed(differing, 5) or "in their order"}): a label would '
                'mean two classes. Give both the same folders, of which some may be empty, and the same `classes`.'
            )


def check_files(loader: str, dataset: dict) -> None:
    """Check that the folders and lists of a data set exist.

    Raises:
        FileNotFoundError: If one does not.
    """
    kind = type_name(dataset)
    for path in _paths(dataset):
        if '://' in path or os.path.exists(os.path.expanduser(path)):
            continue
        message = f'{loader} reads {os.path.abspath(path)}, which does not exist.'
        root = (dataset.get('data_root') or '').rstrip('/')
        if path.endswith(dataset.get('ann_file') or '\0'):
            message += ' It is the ann_file, a list of images.'
        elif kind in ('CustomDataset', 'ImageFolders', 'ImageNet') and root:
            other = 'val' if kind == 'ImageNet' else 'test'
            message += '\n' + FOLDERS.format(root=root, name=os.path.basename(root), other=other)
        raise FileNotFoundError(message)


def check_labels(loader: str, dataset: dict, num_classes: int | None) -> list[str] | None:
    """Check the labels of images in folders or in a list, and the names of the classes.

    Returns:
        list[str] | None: Names of classes in the order of their labels, where these come from folders.

    Raises:
        ValueError: If something does not fit.
    """
    kind, with_label = type_name(dataset), dataset.get('with_label', True)
    names = _class_names(dataset)
    if names and num_classes is not None and len(names) != num_classes:
        raise ValueError(
            f'{loader} has {len(names)} names in `classes`, but the model has {num_classes} classes (num_classes in '
            'model.head and data_preprocessor).'
        )
    *_, last = [dataset.get('data_root') or '', *_paths(dataset)]  # the list, or the folder of folders
    last = os.path.expanduser(last)
    if kind not in ('CustomDataset', 'ImageFolders', 'ImageNet') or '://' in last:
        return None
    if dataset.get('ann_file'):
        samples = read_image_list(last, len(names) if names else num_classes, with_label)
        if kind == 'CustomDataset':
            _check_custom_list(loader, last, samples, with_label)
        return None
    if not with_label or not os.path.isdir(last):
        return None
    folders = class_folders(last)
    if kind != 'ImageFolders':
        _check_custom_folders(loader, kind, last, folders, names)
    if kind == 'ImageNet':
        return None
    if names:
        check_class_names(names, folders, last)
    elif num_classes is not None and len(folders) > num_classes:
        raise ValueError(
            f'{loader} has {len(folders)} folders of classes in {last} ({listed(folders, 10)}), but the model has '
            f'{num_classes} classes. Set num_classes in model.head and data_preprocessor, or remove other folders.'
        )
    return list(names or folders)


def check_pipeline(loader: str, dataset: dict) -> None:
    """Check that corrected attention maps are moved with their images.

    Raises:
        ValueError: If a step after ``LoadAttentionMap`` moves the image alone.
    """
    kinds = [type_name(step) for step in dataset.get('pipeline') or []]
    if 'LoadAttentionMap' in kinds:
        after = kinds.index('LoadAttentionMap') + 1
        for kind, step in zip(kinds[after:], dataset['pipeline'][after:]):
            if moves_pixels(step):
                raise ValueError(
                    f'{loader}: {kind} comes after LoadAttentionMap and would move images without their maps. '
                    'Put it into the `transforms` of LoadAttentionMap, or before it.'
                )


def data_sets_of(cfg: Config, loaders: Sequence[str]) -> Iterator[tuple[str, dict]]:
    """The configs of the innermost data sets of dataloaders, each with the name of its dataloader."""
    for loader in loaders:
        if dataset := (cfg.get(loader) or {}).get('dataset'):
            for inner in innermost_data_sets(dataset):
                yield loader, inner


def innermost_data_sets(dataset: dict) -> Iterator[dict]:
    """The configs of the data sets inside wrappers such as ConcatDataset and RepeatDataset."""
    inner = dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else [])
    if not inner:
        yield dataset
    for each in inner:
        yield from innermost_data_sets(each)


def _paths(dataset: dict) -> Iterator[str]:
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or (type_name(dataset) == 'ImageNet' and dataset.get('split')) or ''
    for part in [*(prefix.values() if isinstance(prefix, dict) else [prefix]), dataset.get('ann_file')]:
        if part:  # a root alone may be one into which the data set will be downloaded
            yield os.path.join(root, part)


def _class_names(dataset: dict) -> list[str] | None:
    classes = dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes')
    if isinstance(classes, str):  # a file of names
        return [line for _, line in read_lines(os.path.expanduser(classes))]
    return classes and list(classes)


def _check_custom_list(loader: str, path: str, samples: list, with_label: bool) -> None:
    """Check that MMPretrain's ``CustomDataset`` reads a list as it is meant."""
    try:
        lines = list_from_file(path)
    except UnicodeDecodeError:
        lines = []
    found = [line.strip().rsplit(' ', 1)[0] if with_label else line for line in lines]
    pairs = zip_longest(found, [name for name, _ in samples])
    if misread := [number for number, (name, expected) in enumerate(pairs, 1) if name != expected]:
        raise ValueError(
            f'{loader}: CustomDataset would misread {path}, line {misread[0]} (a byte-order mark, a blank line, a tab, '
            "several spaces or a backslash). Use type='ImageFolders', which reads it, or rewrite the list."
        )


def _check_custom_folders(loader: str, kind: str, root: str, folders: list[str], names: list[str] | None) -> None:
    """Check that MMPretrain's ``CustomDataset`` numbers folders as it is meant."""
    hidden = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and is_hidden(entry.name))
    if hidden:
        raise ValueError(
            f"{loader}: {kind} would take {', '.join(hidden)} in {root} for a class. Use type='ImageFolders', "
            'which leaves hidden folders out, or remove it.'
        )
    if names and names != folders and sorted(names) == folders:
        raise ValueError(
            f'{loader}: CustomDataset numbers the folders in {root} alphabetically, not in the order of `classes`, so '
            "that all names would be wrong. Use type='ImageFolders', which follows `classes`, or sort them."
        )
