"""Images with numbers, from a CSV file."""

import csv
import math
import os
from pathlib import Path

from mmengine.registry import DATASETS
from mmpretrain.datasets.base_dataset import BaseDataset

from .lists import read_lines


def read_values(path: str) -> tuple[list[str], list[tuple[str, list[float]]]]:
    """The images and values of a CSV file.

    Args:
        path (str): A file whose first line has the names of its columns: first that of the image's file, then those of
            one or more values. See :func:`~mmresattn.datasets.lists.read_lines` for encodings.

    Returns:
        Tuple[List[str], List[Tuple[str, List[float]]]]: Names of the values; and for each line file and values.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line has more or fewer cells than the first, a value is missing or no finite number, or a file
            stands twice. The message names file and line.
    """
    lines = read_lines(path)
    (_, (_, *names)), *rows = [(number, [cell.strip() for cell in next(csv.reader([line]))]) for number, line in lines]
    if not names or not rows or any(_is_number(name) for name in names):
        raise ValueError(
            f'{path}: expected a first line with names of columns, such as `file,age`, and then a line for each image.'
        )
    found: dict[str, list[float]] = {}
    for number, (file, *values) in rows:
        where = f'{path}, line {number}'
        if len(values) != len(names):
            raise ValueError(f'{where}: {1 + len(values)} cells instead of {1 + len(names)} ({", ".join(names)}).')
        for name, value in zip(names, values):
            if not _is_number(value):
                raise ValueError(f'{where}: {name} is {repr(value) if value else "missing"}; expected a finite number.')
        if file in found:
            raise ValueError(f'{where}: {file} stands twice.')
        found[file] = [float(value) for value in values]
    return names, list(found.items())


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@DATASETS.register_module()
class ValueList(BaseDataset):
    """Images with one or more numbers each, from a CSV file: ``file,age``, then ``photo.jpg,31``.

    The arguments are those of MMPretrain's ``BaseDataset``: ``ann_file`` is the CSV file, see :func:`read_values`;
    ``data_root``, ``data_prefix``, ``pipeline``, ``test_mode`` ...

    Items have ``img_path`` and ``gt_value``, a list of numbers; ``metainfo['values']`` has their names.

    Raises:
        FileNotFoundError: If the file or an image is missing.
        ValueError: If the file is not of that form, or a value is the same for all images to train on.
    """

    def load_data_list(self) -> list[dict]:
        """Read and check the file."""
        names, rows = read_values(self.ann_file)
        self._metainfo['values'] = names
        for i, name in enumerate(names):
            if not self.test_mode and len({values[i] for _, values in rows}) == 1:
                value = rows[0][1][i]
                raise ValueError(f'{self.ann_file}: {name} is {value:g} for every image; nothing can be learnt.')
        folder = Path(self.data_prefix.get('img_path') or '')
        if missing := [file for file, _ in rows if not os.path.isfile(folder / file)]:
            raise FileNotFoundError(
                f'{self.ann_file}: {len(missing)} of {len(rows)} images are not in {folder.absolute()}, such as '
                f'{missing[0]}.'
            )
        return [dict(img_path=str(folder / file), gt_value=values) for file, values in rows]
