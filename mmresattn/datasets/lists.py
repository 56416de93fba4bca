"""Text files that list images, as people write them."""

import codecs
import json
import os


def read_lines(path: str) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank.

    Args:
        path (str): A file in UTF-8, with or without a byte-order mark, or in UTF-16 with one.

    Returns:
        list[tuple[int, str]]: Number of each line, from 1, and its text without surrounding white space.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has no lines or another encoding.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'The list {os.path.abspath(path)} is not a file, or not there.')
    with open(path, 'rb') as file:
        content = file.read()
    encoding = 'utf-16' if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else 'utf-8-sig'
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise ValueError(f'{path}, line {line}: this is not {encoding}. Save the file as UTF-8.') from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError(f'{path} is empty.')
    return lines


def read_image_list(path: str, num_classes: int | None = None, with_label: bool = True) -> list[tuple[str, int | None]]:
    """Images and labels of a list that has one image per line: its name and, separated by white space, its label.

    Args:
        path (str): See :func:`read_lines`.
        num_classes (int, optional): Labels are below this number. Defaults to any number.
        with_label (bool): Whether lines end in labels. Defaults to True.

    Returns:
        list[tuple[str, int | None]]: Names, with ``/`` between folders, and labels.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not such a list. The message names file and line.
    """
    lines = read_lines(path)
    if lines[0][1][0] in '[{' and _is_json(path):
        raise ValueError(
            f'{path} is JSON. A list of images is text with one image per line: its name{" and label" * with_label}.'
        )
    samples = []
    for number, line in lines:
        name, label = (line, None)
        if with_label:
            name, _, label = line.replace('\t', ' ').rpartition(' ')
            if not name or not label.isdecimal() or num_classes is not None and int(label) >= num_classes:
                to = 'up' if num_classes is None else f'to {num_classes - 1}, for {num_classes} classes'
                shown = line if len(line) <= 100 else line[:100] + ' ...'
                raise ValueError(
                    f'{path}, line {number}: {shown!r} must be the name of an image and a label from 0 {to}.'
                )
            label = int(label)
        samples.append((name.strip().replace('\\', '/'), label))
    return samples


def _is_json(path: str) -> bool:
    try:
        with open(path, 'rb') as file:
            json.load(file)
    except ValueError:
        return False
    return True
