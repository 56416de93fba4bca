"""CelebA: 202,599 faces with 40 attributes each (Liu et al., Deep Learning Face Attributes in the Wild, ICCV 2015)."""

import os
from collections.abc import Sequence

import numpy as np
from mmengine.registry import DATASETS
from mmpretrain.datasets.base_dataset import BaseDataset

from .lists import read_lines

CELEBA_ATTRIBUTES = (
    '5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair '
    'Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male '
    'Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks '
    'Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace '
    'Wearing_Necktie Young'
).split()  # in the order of the file
SPLITS = ('train', 'val', 'test')  # 0, 1 and 2 in the file


@DATASETS.register_module()
class CelebAAttributes(BaseDataset):
    """CelebA as it is distributed: a folder of images, ``list_attr_celeba.txt`` and ``list_eval_partition.txt``.

    Args:
        data_root (str): Folder of these.
        splits (Sequence[str]): Of ``'train'``, ``'val'`` and ``'test'``. Defaults to ('train',).
        data_prefix (str): Folder of the images. Defaults to ``'img_align_celeba'``.
        ann_file (str): The attributes: the number of images, the names, then for each image its name and 1 or -1 for
            each attribute. Defaults to ``'list_attr_celeba.txt'``.
        partition_file (str): The splits: for each image its name and 0, 1 or 2. Defaults to
            ``'list_eval_partition.txt'``.
        **kwargs: See MMPretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a split is none, or a file is not of this form.
    """

    METAINFO = dict(classes=tuple(CELEBA_ATTRIBUTES))

    def __init__(
        self,
        data_root: str = '',
        splits: Sequence[str] = ('train',),
        data_prefix: str = 'img_align_celeba',
        ann_file: str = 'list_attr_celeba.txt',
        partition_file: str = 'list_eval_partition.txt',
        **kwargs,
    ) -> None:
        if isinstance(splits, str) or not splits or not set(splits) <= set(SPLITS):
            raise ValueError(f'splits are a list of {list(SPLITS)}, not {splits!r}.')
        self.splits = splits
        self.partition_file = os.path.join(data_root, partition_file)
        super().__init__(ann_file, data_root=data_root, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """``img_path`` and ``gt_score`` (40,) of each image: 1 for the attributes that the face has, else 0."""
        try:
            (_, count), *rows = read_lines(self.ann_file)
            partition = read_lines(self.partition_file)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{error} Expected list_attr_celeba.txt and list_eval_partition.txt beside the folder '
                'img_align_celeba of images.'
            ) from error
        (_, names), *rows = rows or [(0, '')]
        if names.split() != CELEBA_ATTRIBUTES or count != str(len(rows)):
            raise ValueError(
                f'{self.ann_file} must begin with the number of its images ({len(rows)} follow; it says {count!r}) and '
                f'the {len(CELEBA_ATTRIBUTES)} names of the attributes of CelebA.'
            )
        attributes = {}
        for number, row in rows:
            name, *values = row.split()
            if len(values) != len(CELEBA_ATTRIBUTES) or not set(values) <= {'1', '-1'}:
                raise ValueError(
                    f'{self.ann_file}, line {number}: {row!r} must be the name of an image and 1 or -1 for each of the '
                    f'{len(CELEBA_ATTRIBUTES)} attributes.'
                )
            attributes[name] = np.array([value == '1' for value in values], np.float32)
        wanted = {str(SPLITS.index(split)) for split in self.splits}
        chosen = []
        for number, line in partition:
            words = line.split()
            if len(words) != 2 or words[1] not in ('0', '1', '2'):
                raise ValueError(
                    f'{self.partition_file}, line {number}: {line!r} must be the name of an image and 0 (train), '
                    '1 (val) or 2 (test).'
                )
            if words[1] in wanted:
                chosen.append(words[0])
        unknown = [name for name in chosen if name not in attributes]
        if unknown or not chosen:
            raise ValueError(
                f'{self.partition_file} names {len(chosen)} images of {list(self.splits)}, of which {len(unknown)} are '
                f'not in {self.ann_file}: {unknown[:3]}. Expected some, and all of them there.'
            )
        return [dict(img_path=os.path.join(self.img_prefix, name), gt_score=attributes[name]) for name in chosen]

    def extra_repr(self) -> list[str]:
        """The extra repr information of the data set."""
        return [*super().extra_repr(), f'Splits: \t{", ".join(self.splits)}']
