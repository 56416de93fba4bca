"""Training labels with noise of a known kind and amount."""

from numbers import Integral

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmpretrain.datasets.base_dataset import BaseDataset


def draw_labels(labels: np.ndarray, num_classes: int, clean_ratio: float, seed: int) -> np.ndarray:
    """Keep each label with probability ``clean_ratio``, else take any other class, all equally likely.

    What becomes of label i follows from (seed, i) and the label, not from how many there are, and no global random
    state is read or set. A label that is kept at one ratio is kept at every higher one.

    Args:
        labels (np.ndarray): Integers (N,) from 0 to ``num_classes - 1``.
        num_classes (int): Number of classes K, at least 2.
        clean_ratio (float): r, from 0 to 1.
        seed (int): Seed, at least 0.

    Returns:
        np.ndarray: Labels (N,).
    """
    streams = np.random.SeedSequence([*b'noisy labels', seed]).spawn(2)
    # RandomState: its numbers stay the same in every release of NumPy, those of the newer Generator need not.
    keep, other = (np.random.RandomState(np.random.MT19937(stream)) for stream in streams)
    changed = keep.random_sample(len(labels)) >= clean_ratio
    step = other.randint(1, num_classes, len(labels), dtype=np.int64)
    return np.where(changed, (labels + step) % num_classes, labels)


@DATASETS.register_module()
class NoisyLabels(BaseDataset):
    """A training set whose labels are partly wrong, for the experiment of table 5 of the paper.

    Each label y is replaced, once and for all, by a draw from row y of the matrix Q with r on the diagonal and
    (1 - r) / (K - 1) everywhere else, for K classes. The paper calls 1 - r the noise level. The draw follows from the
    seed and the place in the data set: it is the same on every rank, in every worker, in every epoch and in a resumed
    run. The noisy label becomes a part of the annotation before any pipeline sees it, so an image and its label stay
    together wherever a sample is taken, repeated, balanced or put in place of a broken one.

    Samples keep the true label as ``clean_label``, a tensor (1,) in the ``DataSample`` like ``gt_label``.

    Wrap the training set alone; errors are measured on clean labels. Other wrappers (``RepeatDataset``,
    ``ClassBalancedDataset``, ``KFoldDataset``, ``ConcatDataset``, ...) go around this one. Parts of one training set
    that are wrapped each for itself want different seeds.

    Args:
        dataset (dict | BaseDataset): A training set of MMPretrain with one label an image, or its config. A built one
            is left as it is.
        clean_ratio (float): r, the probability from 0 to 1 that a label stays as it is; 0.9, 0.7, 0.5 and 0.3 in the
            paper.
        seed (int): Seed of the draw, at least 0. Defaults to 0.

    Raises:
        TypeError: If the data set is not MMPretrain's.
        ValueError: If ``clean_ratio`` is out of range, the data set is for testing, or its classes or labels are
            missing or do not fit.
    """

    def __init__(self, dataset: dict | BaseDataset, clean_ratio: float, seed: int = 0) -> None:
        if not 0 <= clean_ratio <= 1:
            raise ValueError(
                f'clean_ratio is {clean_ratio}; expected 0 to 1, the share of labels that stay as they are. A noise '
                'level of 10 % is clean_ratio=0.9.'
            )
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        name = type(dataset).__name__
        if not isinstance(dataset, BaseDataset):
            raise TypeError(
                f'NoisyLabels takes a data set of MMPretrain (a BaseDataset) or its config, not {name}. Put it inside '
                "of other wrappers: dict(type='RepeatDataset', dataset=dict(type='NoisyLabels', ...), ...)."
            )
        if dataset.test_mode:
            raise ValueError(
                f'The {name} has test_mode=True, but only training labels are to be noisy. Wrap the training set alone.'
            )
        super().__init__(
            ann_file='',
            pipeline=dataset.pipeline.transforms,
            serialize_data=dataset.serialize_data,
            max_refetch=dataset.max_refetch,
            lazy_init=True,
        )
        self.source = name
        self.clean_ratio = clean_ratio
        self.seed = seed
        self.dataset = dataset
        self.full_init()
        del self.dataset  # all of it is here now

    def load_data_list(self) -> list[dict]:
        """The annotations of the data set, checked, with ``gt_label`` drawn and ``clean_label`` besides."""
        infos = [self.dataset.get_data_info(i) for i in range(len(self.dataset))]
        self._metainfo = self.dataset.metainfo
        classes = self.CLASSES
        if not classes or len(classes) < 2:
            raise ValueError(
                f'The {self.source} has {f"the classes {classes!r}" if classes else "no classes in its metainfo"}, but '
                'noise needs two or more. Give it all of them: classes=[...].'
            )
        for i, info in enumerate(infos):
            label = info.get('gt_label')
            if not isinstance(label, Integral) or not 0 <= label < len(classes):
                raise ValueError(
                    f'Sample {i} of the {self.source} has the gt_label {label!r}; expected one integer from 0 to '
                    f'{len(classes) - 1}. Correct its labels or its classes; multi-label data have no such noise.'
                )
        clean = np.array([info['gt_label'] for info in infos], dtype=np.int64)  # N
        noisy = draw_labels(clean, len(classes), self.clean_ratio, self.seed)  # N
        changed = int((noisy != clean).sum())
        MMLogger.get_current_instance().info(
            f'NoisyLabels: noise level {1 - self.clean_ratio:.4f} asked for, {changed / len(infos):.4f} drawn: '
            f'{changed} of {len(infos)} labels of the {self.source} changed, seed {self.seed}.'
        )
        return [dict(info, gt_label=int(n), clean_label=int(c)) for info, n, c in zip(infos, noisy, clean)]

    def prepare_data(self, idx: int) -> dict | None:
        """A sample after the pipeline, where ``data_samples`` if any has ``clean_label`` (1,)."""
        info = self.get_data_info(idx)
        clean = torch.tensor([info['clean_label']])
        sample = self.pipeline(info)
        if sample is not None and 'data_samples' in sample:
            sample['data_samples'].set_field(clean, 'clean_label')
        return sample

    def transition_matrix(self) -> np.ndarray:
        """Counts (K, K), true label by noisy label. Divided by the sums of its rows it estimates Q."""
        counts = np.zeros((len(self.CLASSES), len(self.CLASSES)), dtype=np.int64)
        for i in range(len(self)):
            info = self.get_data_info(i)
            counts[info['clean_label'], info['gt_label']] += 1
        return counts

    def extra_repr(self) -> list[str]:
        """The extra repr information of the data set."""
        return [f'Labels of: \t{self.source}', f'Clean ratio: \t{self.clean_ratio}', f'Seed: \t{self.seed}']
