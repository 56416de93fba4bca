"""Small data sets kept in memory and given as whole batches, so that loading costs next to nothing."""

from collections.abc import Sequence

import torch
from mmengine.registry import DATASETS, FUNCTIONS
from mmpretrain.structures import DataSample
from rich.progress import track


@FUNCTIONS.register_module()
def one_batch(batch: dict) -> dict:
    """The collate function for :class:`InMemory`, which gives whole batches already."""
    return batch


@DATASETS.register_module()
class InMemory:
    """Images of one size that were loaded once, through their pipeline, and are given as whole batches.

    Per image, decoding, a pipeline and collation cost more than a small network's step on a GPU. Here a batch is one
    indexing of one tensor; random augmentation belongs to :class:`mmresattn.models.BatchTransformPreprocessor`, which
    does it for the whole batch on the device. The dataloader needs ``collate_fn=dict(type='one_batch')``; it needs no
    workers.

    Args:
        dataset (dict | Dataset): Any data set whose samples are ``dict(inputs=Tensor, data_samples=DataSample)``, as
            from ``PackInputs``, with images of one size. Its pipeline runs once for every image, so it must not draw.

    Raises:
        ValueError: If the data set is empty or its images differ in size.
    """

    def __init__(self, dataset) -> None:
        dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.metainfo = dataset.metainfo
        if not len(dataset):
            raise ValueError(f'InMemory: the {type(dataset).__name__} holds no images.')
        self.images = None
        columns: dict[str, list] = {}
        for i in track(range(len(dataset)), 'Images into memory', transient=True):
            sample = dataset[i]
            image = sample['inputs']
            if self.images is None:
                self.images = image.new_empty(len(dataset), *image.shape)
            if image.shape != self.images.shape[1:]:
                raise ValueError(
                    f'InMemory needs images of one size: image {i} of the {type(dataset).__name__} is '
                    f'{tuple(image.shape)}, the first is {tuple(self.images.shape[1:])}. Resize them in its pipeline.'
                )
            self.images[i] = image
            for key, value in sample['data_samples'].items():
                columns.setdefault(key, []).append(torch.as_tensor(value))
        self.columns = {key: torch.stack(values) for key, values in columns.items()}  # gt_label: N, 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """A batch, in place of its samples; PyTorch's DataLoader prefers this method.

        Args:
            indices (Sequence[int]): Which images.

        Returns:
            dict: ``inputs`` (N, C, H, W) and ``data_samples``, a list of N.
        """
        fields = [column[indices].unbind() for column in self.columns.values()]
        samples = [DataSample(**dict(zip(self.columns, values))) for values in zip(*fields)]
        return dict(inputs=self.images[indices], data_samples=samples)

    def __getitem__(self, index: int) -> dict:
        """One sample, as the data set itself would give it."""
        batch = self.__getitems__([index])
        return dict(inputs=batch['inputs'][0], data_samples=batch['data_samples'][0])

    @property
    def CLASSES(self) -> Sequence[str] | None:
        """Names of the classes."""
        return self.metainfo.get('classes')

    def get_gt_labels(self) -> torch.Tensor:
        """The labels (N,)."""
        return self.columns['gt_label'][:, 0]
