"""Which images there are, and what they are called."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from urllib.parse import urlparse

import cv2
import numpy as np
from mmengine.logging import print_log

from ..datasets.image_files import SUFFIXES, BrokenImage, check_regular_file, find_image_files
from .overlay import check_image_array

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')
LISTED = 10  # skipped files that are named at the end


class UniqueNames:
    """Names that never come twice: a name that is taken gets ``_2``, ``_3`` and so on."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def __call__(self, name: str) -> str:
        number, unique = 1, name
        while unique in self.taken:
            number += 1
            unique = f'{name}_{number}'
        self.taken.add(unique)
        return unique


def relative_name(path: str, root: str | None = None) -> str:
    """A path relative to a folder, without its suffix and with ``/``; outside of that folder, its stem."""
    path = PurePath(urlparse(path).path if '://' in path else os.path.abspath(path))
    if root is not None and path.is_relative_to(os.path.abspath(root)):
        path = path.relative_to(os.path.abspath(root))
        return path.with_suffix('').as_posix()
    return path.stem


def data_set_root(dataset) -> str | None:
    """The folder of all image files of a data set, in whatever wrappers; None if it is not known."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner != [None]:
        roots = [data_set_root(dataset) for dataset in inner]
    else:
        prefix = getattr(dataset, 'data_prefix', None) or {}
        prefix = prefix if isinstance(prefix, dict) else dict(img_path=prefix)
        roots = [prefix.get('img_path') or prefix.get('img') or getattr(dataset, 'data_root', None)]
    if not all(roots) or any('://' in root for root in roots):
        return None
    return os.path.commonpath([os.path.abspath(root) for root in roots])


class ImageSources:
    """Images of files, addresses, arrays, folders, videos and lists of these, by name and one after the other.

    A file is named by its path, relative to the folder that was given or to the folder that the files of a list have in
    common, without its suffix: ``cats/0001``. Frame 12 of ``clip.mp4``, from 0, is ``clip_000012``; an array is named
    by its place in the list, from 0. Names that come again get ``_2`` and so on.

    Args:
        inputs (str | Path | np.ndarray | Sequence): A path or address; an array (H, W) or (H, W, C); a folder, with its
            subfolders; a video; or a list of these.
        strict (bool): Whether a file that cannot be read stops everything. Otherwise it is skipped if there are others.
            Defaults to False.

    Attributes:
        total (int): How many images there should be.
        skipped (Dict[str, str]): Files that could not be read, and why.

    Raises:
        FileNotFoundError: If a path is missing.
        ValueError: If an input is none of these, or there are no images.
    """

    def __init__(self, inputs: str | Path | np.ndarray | Sequence, strict: bool = False) -> None:
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if not given:
            raise ValueError('There are no images: the list is empty.')
        files = [os.path.abspath(source) for source in given if _is_file(source)]
        common = os.path.commonpath([os.path.dirname(file) for file in files]) if files else None
        self._items = [item for i, source in enumerate(given) for item in _items(source, i, common)]
        self.total = sum(frames for _, _, frames in self._items)
        self.strict = strict or len(self._items) == 1
        self.skipped: dict[str, str] = {}

    def __iter__(self) -> Iterator[tuple[str, str | np.ndarray]]:
        """Names, and paths or arrays."""
        unique = UniqueNames()
        for name, source, _ in self._items:
            if isinstance(source, str) and _is_video(source):
                try:
                    for number, frame in enumerate(_frames(source)):
                        yield unique(f'{name}_{number:06d}'), frame
                except BrokenImage as error:
                    self.skip(source, error)
            else:
                yield unique(name), source

    def skip(self, source: str, error: BrokenImage) -> None:
        """Note that a file cannot be read, or raise the error if nothing is skipped."""
        if self.strict:
            raise error
        self.skipped[source] = str(error)

    def report(self) -> None:
        """Say at the end which files were skipped; a BrokenImage says so if all were."""
        if not self.skipped:
            return
        reasons = list(self.skipped.values())
        lines = [f'    {reason}' for reason in reasons[:LISTED]]
        lines += [f'    and {len(reasons) - LISTED} more'] if len(reasons) > LISTED else []
        message = '\n'.join([f'{len(reasons)} of {len(self._items)} files were skipped:', *lines])
        if len(reasons) == len(self._items):
            raise BrokenImage(message)
        print_log(message, 'current', level=logging.WARNING)


def _is_file(source) -> bool:
    return isinstance(source, str | Path) and '://' not in str(source) and not Path(source).expanduser().is_dir()


def _is_video(source: str) -> bool:
    return PurePath(urlparse(source).path).suffix.lower() in VIDEOS


def _items(source, number: int, common: str | None) -> Iterator[tuple[str, str | np.ndarray, int]]:
    """Name, file or array, and number of images."""
    if isinstance(source, np.ndarray):
        check_image_array(source)
        yield str(number), source, 1
        return
    if not isinstance(source, str | Path):
        raise ValueError(
            'An image is a path, an address, an array (height, width[, channels]) in BGR, a folder, a video or a list '
            f'of these, not {type(source).__name__}.'
        )
    source = str(source)
    if '://' not in source:
        source = os.path.expanduser(source)
        if not os.path.lexists(source):
            raise FileNotFoundError(f'There is no image, folder or video {source}.')
    if '://' not in source and os.path.isdir(source):
        files = find_image_files(source)
        if not files:
            raise ValueError(f'The folder {source} has no images ({", ".join(SUFFIXES)}).')
        for file in files:
            yield relative_name(str(file), source), str(file), 1
    else:
        frames = 1
        if _is_video(source) and ('://' in source or os.path.isfile(source)):
            frames = max(int(cv2.VideoCapture(source).get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        yield relative_name(source, common), source, frames


def _frames(path: str) -> Iterator[np.ndarray]:
    """Frames of a video in BGR, decoded one by one."""
    if '://' not in path:
        check_regular_file(path)
    capture = cv2.VideoCapture(path)
    number = 0
    try:
        while (frame := capture.read()[1]) is not None:
            number += 1
            yield frame
    finally:
        capture.release()
    if not number:
        raise BrokenImage(f'{path} cannot be read as a video: OpenCV decodes no frame of it.')
