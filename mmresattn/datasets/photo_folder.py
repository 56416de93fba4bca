"""Photographs in one folder for each class, with the classes read from the folders."""

from pathlib import Path
from zlib import crc32

from mmengine.config import Config
from mmengine.registry import DATASETS
from mmpretrain.datasets.base_dataset import BaseDataset

from ..utils import nested_dicts
from .image_files import SUFFIXES, find_image_files
from .image_folders import class_folders

SPLITS = ('train', 'val', 'test')
LAYOUT = """\
Expected photographs in one folder for each class:
    {root}/train/<class>/*
    {root}/val/<class>/*     (optional: otherwise some of train are held out)
    {root}/test/<class>/*    (optional: otherwise those of val)
or {root}/<class>/* alone. Give the folder with --cfg-options data_root=FOLDER."""


def read_classes(root: str) -> list[str]:
    """Names of the classes of a :class:`PhotoFolder`: those of its folders with training images, sorted.

    Raises:
        FileNotFoundError: If there is no such folder, or there are fewer than two folders of classes in it.
    """
    folder = _training_folder(root)
    classes = class_folders(str(folder)) if folder.is_dir() else []
    if len(classes) < 2 or folder.name != 'train' and {'val', 'test'} & set(classes):
        problem = f'has the folders {classes}' if folder.is_dir() else 'does not exist'
        raise FileNotFoundError(f'{folder.absolute()} {problem}.\n{LAYOUT.format(root=root)}')
    return classes


def set_num_classes(cfg: Config) -> None:
    """Set every ``num_classes`` of a model that trains on a :class:`PhotoFolder` to the number of its folders.

    Args:
        cfg (Config): Config of a training; changed in place. Others stay as they are.

    Raises:
        FileNotFoundError: If the folder has no classes.
    """
    dataset = (cfg.get('train_dataloader') or {}).get('dataset', {})
    if dataset.get('type') != 'PhotoFolder':
        return
    classes = len(read_classes(dataset.data_root))
    for part in nested_dicts([cfg.model, cfg.get('data_preprocessor')]):
        if 'num_classes' in part:
            part['num_classes'] = classes


def _training_folder(root: str) -> Path:
    folder = Path(root).expanduser()
    return folder / 'train' if (folder / 'train').is_dir() else folder


@DATASETS.register_module()
class PhotoFolder(BaseDataset):
    """Your own photographs, in one folder for each class::

        FOLDER/{train,val,test}/<class>/*  or  FOLDER/<class>/*

    The classes are the folders with training images. Files that are no images by their name are left out, and hidden
    ones; folders within that of a class are searched, too. Classes may have any number of images.

    If there is no ``val``, the share ``held_out`` of the training images of each class validates instead: those whose
    file names have the smallest checksums, so that images which are added move few others. If there is no ``test``,
    the split ``'test'`` has the images of ``'val'``.

    Args:
        data_root (str): FOLDER.
        split (str): ``'train'``, ``'val'`` or ``'test'``.
        held_out (float): Share of the training images that validates if there is no ``val``. Defaults to 0.15.
        **kwargs: See MMPretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If there are no such folders.
        ValueError: If the split is unknown, a split has no images, or it has a class that ``train`` has not.
    """

    def __init__(self, data_root: str, split: str, held_out: float = 0.15, **kwargs) -> None:
        if split not in SPLITS:
            raise ValueError(f'split is one of {SPLITS}, not {split!r}.')
        if not 0 < held_out < 1:
            raise ValueError(f'held_out is a share between 0 and 1, not {held_out!r}.')
        self.split = split
        self.held_out = held_out
        super().__init__(ann_file='', data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """``img_path`` and ``gt_label`` of each image of the split."""
        classes = read_classes(self.data_root)
        self._metainfo.setdefault('classes', tuple(classes))
        root = Path(self.data_root).expanduser()
        folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
        split = 'val' if self.split == 'test' and 'test' not in folders else self.split
        folder = folders.get(split, _training_folder(self.data_root))
        part = 'all' if 'val' in folders or split == 'test' else 'rest' if split == 'train' else 'held out'
        if unknown := sorted({*class_folders(str(folder))} - {*classes}):
            raise ValueError(f'{folder} has folders of classes that the training images lack: {unknown}.')
        samples = [
            dict(img_path=str(path), gt_label=label)
            for label, name in enumerate(classes)
            for path in _images(folder / name, part, self.held_out)
        ]
        if not samples:
            raise ValueError(f'{folder.absolute()} holds no images ({", ".join(SUFFIXES)}) for {self.split!r}.')
        return samples


def _images(folder: Path, part: str, held_out: float) -> list[Path]:
    """Images of a class: ``'all'`` of them, those that are ``'held out'`` for validation, or the ``'rest'``."""
    images = find_image_files(folder)
    if part != 'all':
        images.sort(key=lambda path: (crc32(path.name.encode()), path))
        n = max(1, round(held_out * len(images))) if len(images) > 1 else 0
        images = images[:n] if part == 'held out' else images[n:]
    return sorted(images)
