"""Images that are in memory: scikit-learn's digits, or arrays in a file."""

import numpy as np
from mmengine.registry import DATASETS
from mmpretrain.datasets.base_dataset import BaseDataset


def load_digits() -> dict:
    """The 1,797 handwritten digits of scikit-learn: 8x8 grey images, here scaled from 0..16 to 0..255."""
    from sklearn import datasets

    digits = datasets.load_digits()
    return dict(
        images=(digits.images * 255 / 16).round().astype(np.uint8),
        labels=digits.target,
        classes=[str(name) for name in digits.target_names],
    )


def load_npz(path: str) -> dict:
    """Arrays ``images`` (N, H, W[, 3]) uint8, RGB or grey, ``labels`` (N,) and ``classes`` of an ``.npz`` file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ('images', 'labels', 'classes')}
        classes = [str(name) for name in arrays['classes']]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"ImageArrays finds no file {path!r}. data is 'digits' or an .npz file.") from error
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen types for damaged files
        raise ValueError(
            f'{path!r} must be an .npz file with the arrays images (N, H, W, 3 or N, H, W; uint8), labels (N,) and '
            f'classes (K,): {error}'
        ) from error
    return dict(arrays, classes=classes)


@DATASETS.register_module()
class ImageArrays(BaseDataset):
    """Labelled images in memory.

    Samples hold the image itself as ``img``, (H, W, 3) uint8 in BGR as ``LoadImageFromFile`` would give it (grey
    images have three equal channels), so the pipeline needs no loading step.

    Args:
        data (str): ``'digits'`` for scikit-learn's handwritten digits, which need no download, or an ``.npz`` file
            with the arrays ``images`` (N, H, W, 3 in RGB, or N, H, W in grey; uint8), ``labels`` (N,) and
            ``classes``. Defaults to ``'digits'``.
        split (str, optional): ``'test'`` for a fixed fifth, stratified by class, ``'train'`` for the rest. Defaults to
            None, everything.
        **kwargs: See MMPretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If the file or the split is not of this form.
    """

    def __init__(self, data: str = 'digits', split: str | None = None, **kwargs) -> None:
        if split not in ('train', 'test', None):
            raise ValueError(f"split is 'train', 'test' or None, not {split!r}.")
        self.data = data
        self.split = split
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """``img``, ``img_shape``, ``ori_shape`` and ``gt_label`` of each sample of the split."""
        arrays = load_digits() if self.data == 'digits' else load_npz(self.data)
        images, labels, classes = arrays['images'], arrays['labels'], arrays['classes']
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.ndim == 4 and images.shape[3] != 3:
            raise ValueError(
                f'Images of {self.data!r} are {images.dtype} of shape {images.shape}; expected uint8 of (N, H, W, 3) '
                'in RGB or (N, H, W) in grey.'
            )
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f'{self.data!r} has {len(images)} images but labels {labels.dtype} of {labels.shape}.')
        if not len(images) or labels.min() < 0 or labels.max() >= len(classes):
            raise ValueError(f'Labels of {self.data!r} must be from 0 to {len(classes) - 1}, and there must be some.')
        self._metainfo.setdefault('classes', tuple(classes))
        indices = np.arange(len(images))
        if self.split:
            from sklearn.model_selection import train_test_split

            train, test = train_test_split(indices, test_size=0.2, stratify=labels, random_state=0)
            indices = np.sort(train if self.split == 'train' else test)
        bgr = images[..., ::-1] if images.ndim == 4 else np.repeat(images[..., None], 3, axis=3)
        shape = dict(img_shape=bgr.shape[1:3], ori_shape=bgr.shape[1:3])
        return [dict(img=np.ascontiguousarray(bgr[i]), gt_label=int(labels[i]), **shape) for i in indices]

    def extra_repr(self) -> list[str]:
        """The extra repr information of the data set."""
        return [f'Arrays: \t{self.data}', f'Split: \t{self.split or "everything"}']
