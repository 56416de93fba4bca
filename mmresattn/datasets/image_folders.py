"""Images in folders or in a list, as small projects keep them."""

from collections.abc import Sequence
from pathlib import PurePath

from mmengine.fileio import join_path
from mmengine.registry import DATASETS
from mmpretrain.datasets.custom import CustomDataset, find_folders, get_samples

from .lists import read_image_list


def is_hidden(path: str) -> bool:
    """Whether a part of a relative path begins with a dot, as ``.ipynb_checkpoints`` does."""
    return any(part.startswith('.') for part in PurePath(path).parts)


def class_folders(root: str) -> list[str]:
    """Names of the folders of classes: all folders in ``root`` that are not hidden, sorted."""
    return [name for name in find_folders(root)[0] if not is_hidden(name)]


def check_class_names(classes: Sequence[str], folders: Sequence[str], root: str) -> None:
    """Check that the names of the classes are those of the folders, in any order.

    Raises:
        ValueError: If not. The message names those that differ.
    """
    if set(classes) != set(folders) or len(classes) != len(set(classes)):
        missing, extra = sorted(set(classes) - set(folders)), sorted(set(folders) - set(classes))
        raise ValueError(
            f'classes must name each folder in {root} once. It has {len(classes)} names for {len(folders)} folders; '
            f'names without a folder: {missing[:5]}, folders without a name: {extra[:5]}.'
        )


@DATASETS.register_module()
class ImageFolders(CustomDataset):
    """MMPretrain's ``CustomDataset`` that also reads what small projects are like.

    - Hidden folders and files, such as ``.ipynb_checkpoints``, are neither classes nor images.
    - ``classes`` may name the folders in any order; labels follow this order. ``CustomDataset`` numbers folders
      alphabetically whatever ``classes`` says.
    - A list (``ann_file``) may begin with a byte-order mark, be in UTF-16, have blank lines, or separate folders by
      backslashes. See :func:`~mmresattn.datasets.lists.read_image_list`.

    Arguments are those of ``CustomDataset``.

    Raises:
        FileNotFoundError: If a list is missing.
        ValueError: If a list, its labels or the names of the classes do not fit, or there is no image.
    """

    def load_data_list(self) -> list[dict]:
        """``img_path`` and, with labels, ``gt_label`` of each image."""
        if self.ann_file:
            num_classes = None if self.CLASSES is None else len(self.CLASSES)
            samples = read_image_list(self.ann_file, num_classes, self.with_label)
        else:
            samples = self._find_samples()
        return [
            dict(img_path=join_path(self.img_prefix, name), **({} if label is None else dict(gt_label=label)))
            for name, label in samples
        ]

    def _find_samples(self) -> list[tuple[str, int | None]]:
        if self.with_label:
            folders = class_folders(self.img_prefix)
            if self.CLASSES is None:
                self._metainfo['classes'] = tuple(folders)
            check_class_names(self.CLASSES, folders, self.img_prefix)
            self.folder_to_idx = {name: i for i, name in enumerate(self.CLASSES)}
            samples, _ = get_samples(self.img_prefix, self.folder_to_idx, self.is_valid_file)
        else:
            samples = [(name, None) for name in get_samples(self.img_prefix, None, self.is_valid_file)[0]]
        samples = [(name, label) for name, label in samples if not is_hidden(name)]
        if not samples:
            raise ValueError(
                f'There are no images in {self.img_prefix}{" in a folder per class" * self.with_label}. Images end in '
                f'{", ".join(sorted(self.extensions))}.'
            )
        return samples
