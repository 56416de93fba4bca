"""Images kept in memory, so that loading costs next to nothing: as whole batches, or one by one before what draws."""

from collections.abc import Sequence

import torch
from mmcv.transforms import BaseTransform, Compose
from mmengine.registry import DATASETS, FUNCTIONS, TRANSFORMS
from mmpretrain.structures import DataSample
from rich.progress import track


class _Batch(dict):
    """A batch, which is no list of samples."""

    def __missing__(self, key):
        if key == 0:  # what a collate function asks for first
            raise TypeError("InMemory gives whole batches: its dataloader needs collate_fn=dict(type='one_batch').")
        raise KeyError(key)


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

    Images for which the data set gave others, because they are broken (``LoadCheckedImage(skip_broken=True)``), are
    left out; ``broken_images`` says which and why.

    Args:
        dataset (dict | Dataset): Any data set whose samples are ``dict(inputs=Tensor, data_samples=DataSample)``, as
            from ``PackInputs``, with images of one size. Its pipeline runs once for every image, so it must not draw.

    Raises:
        ValueError: If the data set is empty, or its images or the fields of its samples differ in size.
    """

    def __init__(self, dataset) -> None:
        dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        name, n = type(dataset).__name__, len(dataset)
        if not n:
            raise ValueError(f'InMemory: the {name} holds no images.')
        self.pipeline = Compose([])  # that of the data set has run
        self.metainfo = dataset.metainfo  # after len(), which reads a lazy data set
        columns: dict[str, list] = {}
        kept, self.broken_images = [], {}
        for i in track(range(n), 'Images into memory', transient=True):
            sample = dataset[i]
            if broken := getattr(sample['data_samples'].get('img_path'), 'broken', None):
                self.broken_images.update(broken)
                continue
            kept.append(i)
            fields = {key: torch.as_tensor(value) for key, value in sample['data_samples'].items()}
            for key, value in {'inputs': sample['inputs'], **fields}.items():
                if len(kept) == 1:
                    columns[key] = value.new_empty(n, *value.shape)
                if key not in columns or value.shape != columns[key].shape[1:]:
                    first = tuple(columns[key].shape[1:]) if key in columns else 'not there'
                    raise ValueError(
                        f'InMemory needs images and fields of one size: {key} of sample {i} of the {name} is '
                        f'{tuple(value.shape)}, that of the first is {first}. Resize images in the pipeline, or do '
                        'without InMemory.'
                    )
                columns[key][i] = value
            if missing := sorted(columns.keys() - {'inputs', *fields}):
                raise ValueError(f'InMemory: sample {i} of the {name} lacks {missing}, which the first one has.')
        if not kept:
            first = next(iter(self.broken_images))
            raise ValueError(f'InMemory: all {n} images of the {name} are broken, {first} first.')
        if self.broken_images:
            columns = {key: column[kept] for key, column in columns.items()}
        self.images = columns.pop('inputs')  # N, C, H, W
        self.columns = columns  # gt_label: N, 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """A batch, in place of its samples: ``inputs`` (N, C, H, W) and ``data_samples``, a list of N.

        PyTorch's DataLoader prefers this method.
        """
        indices = torch.tensor(indices)
        rows = self.images.flatten(1).index_select(0, indices)  # a copy each
        images = rows.unflatten(1, self.images.shape[1:])
        fields = [column[indices].unbind() for column in self.columns.values()]
        samples = [DataSample(**dict(zip(self.columns, values))) for values in zip(*fields)]
        return _Batch(inputs=images, data_samples=samples)

    def __getitem__(self, index: int) -> dict:
        """One sample, as a tool that browses data sets wants it: through :attr:`pipeline`, with ``img`` (H, W, C).

        ``data_samples`` holds the fields of the data set's, but no meta information.
        """
        batch = self.__getitems__([index])
        image = batch['inputs'][0]  # C, H, W
        img = image.permute(1, 2, 0).contiguous().cpu().numpy()
        return self.pipeline(dict(img=img, inputs=image, data_samples=batch['data_samples'][0]))

    @property
    def CLASSES(self) -> Sequence[str] | None:
        """Names of the classes."""
        return self.metainfo.get('classes')

    def get_gt_labels(self) -> torch.Tensor:
        """The labels (N,)."""
        return self.columns['gt_label'][:, 0]


@TRANSFORMS.register_module()
class KeepInMemory(BaseTransform):
    """Runs transforms once for each image and keeps what they give, so that later epochs do not decode files again.

    It pays where files are large and few: decoding a photograph of a phone takes longer than a training step of a
    small network on it. An image of 160x160 takes 77 kB of memory, 10,000 such images 0.8 GB; each worker of a
    dataloader keeps its own.

    Args:
        transforms (Sequence[dict]): Transforms that do not draw, such as loading and resizing.
    """

    def __init__(self, transforms: Sequence[dict]) -> None:
        self.transforms = Compose(transforms)
        self.kept: dict[str, dict] = {}

    def transform(self, results: dict) -> dict | None:
        """Take what the transforms gave for this ``img_path``, or run them; None if one gave up on the image."""
        path = results['img_path']
        if path not in self.kept:
            given = self.transforms(dict(results))
            if given is None:
                return None
            self.kept[path] = {key: value for key, value in given.items() if value is not results.get(key)}
        kept = self.kept[path]
        return {**results, **kept, 'img': kept['img'].copy()}  # later transforms may write into it
