"""A trained classifier and its test images, for measurements that are no metric of a test run."""

from collections.abc import Sequence

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner, set_random_seed
from torch.utils.data import DataLoader, Subset

from ..datasets import check_data, innermost_data_sets
from ..weights import existing
from .launch import build_model, read_config

# Wrappers that change how often images come, where they are kept, or their labels
ONCE = ('RepeatDataset', 'ClassBalancedDataset', 'InMemory', 'NoisyLabels')


def load_classifier(
    config: str,
    checkpoint: str | None,
    options: dict | None = None,
    max_images: int | None = None,
    seed: int = 0,
    split: str = 'test',
) -> tuple[BaseModel, DataLoader]:
    """The model of a config, in evaluation mode and on the accelerator if there is one, and its images.

    Args:
        config (str): Config file with a ``test_dataloader``, and the dataloader of the split.
        checkpoint (str, optional): Checkpoint file or address; None for the initialised model.
        options (dict, optional): Settings of the config to change, as for :func:`read_config`.
        max_images (int, optional): Take so many of the images, drawn by the seed alone: data sets often lie
            sorted by class, so that the first ones would be no fair sample. Defaults to all.
        seed (int): Of the initialisation and of the draw, at least 0. Defaults to 0.
        split (str): As for :func:`load_data_set`; all are batched as test images. Defaults to ``'test'``.

    Returns:
        Tuple[BaseModel, DataLoader]: The model, with the metadata of its checkpoint as ``_dataset_meta`` (names of the
        classes) and ``_trained_for`` (``preprocessing``, ``input_size``); and batches of ``inputs`` and
        ``data_samples``.

    Raises:
        CheckpointError: If the checkpoint is damaged or unsafe, or does not have exactly the weights of the model.
        FileNotFoundError: If the checkpoint or data is missing.
        ValueError: If ``max_images`` is not positive, or labels do not fit.
    """
    if max_images is not None and max_images < 1:
        raise ValueError(f'max_images is at least 1, or None for all images, not {max_images}.')
    if checkpoint is not None:
        checkpoint = existing(checkpoint)
    cfg = read_config(config, options)
    check_data(cfg, [f'{split}_dataloader'])
    set_random_seed(seed)
    model = build_model(cfg, checkpoint)
    dataset = load_data_set(cfg, split)
    if max_images is not None:
        drawn = np.random.default_rng(seed).permutation(len(dataset))[:max_images]
        dataset = Subset(dataset, sorted(drawn.tolist()))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        collate = dict(collate_fn=dict(type='default_collate'))  # as for training and testing in MMPretrain
        loader = Runner.build_dataloader({**collate, **cfg.test_dataloader, 'dataset': dataset}, seed=seed)
    if checkpoint is None:
        model.init_weights()
    return model.to(get_device()).eval(), loader


def load_data_set(cfg: Config, split: str = 'test') -> Sequence[dict]:
    """The images of a config, prepared as test images are.

    Args:
        cfg (Config): Config with a ``test_dataloader``, and the dataloader of the split.
        split (str): ``'test'`` or ``'val'``, or ``'train'`` for the training images, each once; of a ``KFoldDataset``
            its training part. Defaults to ``'test'``.

    Returns:
        Sequence[dict]: The data set, with samples ``inputs`` and ``data_samples``.
    """
    source = cfg[f'{split}_dataloader'].dataset
    if split == 'train':
        source = _each_image_once(source, next(innermost_data_sets(cfg.test_dataloader.dataset))['pipeline'])
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        return DATASETS.build(source)


def existing_indices(dataset: Sequence, indices: Sequence[int] | None = None) -> list[int]:
    """The indices that a data set has, after a line about those that it has not.

    Args:
        dataset (Sequence): The data set.
        indices (Sequence[int], optional): Wanted ones. Defaults to the first four.

    Raises:
        IndexError: If it has none of them.
    """
    found = [index for index in indices or range(4) if 0 <= index < len(dataset)]
    if not found:
        raise IndexError(f'The test set has {len(dataset)} images, from 0: there is none of {list(indices or [0])}.')
    if indices and len(found) < len(indices):
        print(f'The test set has {len(dataset)} images, from 0: there is no {sorted({*indices} - {*found})}.')
    return found


def _each_image_once(dataset: dict, pipeline: list) -> dict:
    """A training set with another pipeline, without what repeats it, keeps it in memory or makes its labels noisy."""
    if 'datasets' in dataset:
        return {**dataset, 'datasets': [_each_image_once(inner, pipeline) for inner in dataset['datasets']]}
    if 'dataset' not in dataset:
        return {**dataset, 'pipeline': pipeline}
    inner = _each_image_once(dataset['dataset'], pipeline)
    kind = dataset['type'] if isinstance(dataset['type'], str) else dataset['type'].__name__
    return inner if kind.rpartition('.')[2] in ONCE else {**dataset, 'dataset': inner}
