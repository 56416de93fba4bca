"""Data that is not there is said at once, not after minutes of building."""

import os
from collections.abc import Iterator, Sequence

from mmengine.config import Config

FOLDERS = """\
Expected one folder of images for each class:
    {root}/train/<class>/*
    {root}/{other}/<class>/*
Put or link it there (ln -s /where/it/is {root}), or set MMRESATTN_DATA to the folder that holds `{name}`."""


def _datasets(dataset: dict) -> Iterator[dict]:
    """The data sets inside of wrappers such as ConcatDataset and RepeatDataset."""
    inner = dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else [])
    if not inner:
        yield dataset
    for one in inner:
        yield from _datasets(one)


def _paths(dataset: dict, kind: str) -> Iterator[str]:
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or (kind == 'ImageNet' and dataset.get('split')) or ''
    for part in [*(prefix.values() if isinstance(prefix, dict) else [prefix]), dataset.get('ann_file')]:
        if part:  # a root alone may be one into which the data set will be downloaded
            yield os.path.join(root, part)


def check_data(cfg: Config, loaders: Sequence[str]) -> None:
    """Check that the folders and files which a config reads are there.

    Args:
        cfg (Config): The config.
        loaders (Sequence[str]): The dataloaders in use, of ``train_dataloader``, ``val_dataloader`` and
            ``test_dataloader``.

    Raises:
        FileNotFoundError: If one is missing. The message says where and in which layout to put it.
    """
    for loader in loaders:
        for dataset in _datasets((cfg.get(loader) or {}).get('dataset') or {}):
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
