"""A trained classifier and its test images, for measurements that are no metric of a test run."""

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner, set_random_seed
from torch.utils.data import DataLoader, Subset

from ..compat import enable_for
from ..datasets import check_data
from ..weights import existing, load_checkpoint


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
        config (str): Config file with a ``test_dataloader``, and for training images a ``train_dataloader``.
        checkpoint (str, optional): Checkpoint file or address; None for the initialised model.
        options (dict, optional): Settings of the config to change: ``{'model.head.num_classes': 5}``.
        max_images (int, optional): Take so many of the images, drawn by the seed alone: data sets often lie
            sorted by class, so that the first ones would be no fair sample. Defaults to all.
        seed (int): Of the initialisation and of the draw, at least 0. Defaults to 0.
        split (str): ``'test'``, or ``'train'`` for the training images, prepared and batched as the test images are.
            Defaults to ``'test'``.

    Returns:
        Tuple[BaseModel, DataLoader]: The model, with the metadata of its checkpoint as ``_dataset_meta`` (names of the
        classes) and ``_trained_for`` (``preprocessing``, ``input_size``); and batches of ``inputs`` and
        ``data_samples``.

    Raises:
        CheckpointError: If the checkpoint is damaged or unsafe, or does not have exactly the weights of the model.
        FileNotFoundError: If the checkpoint or data is missing.
        ValueError: If ``max_images`` is not positive, ``split`` is unknown, or labels do not fit.
    """
    if split not in ('train', 'test'):
        raise ValueError(f"split is 'train' or 'test', not {split!r}.")
    if max_images is not None and max_images < 1:
        raise ValueError(f'max_images is at least 1, or None for all images, not {max_images}.')
    if checkpoint is not None:
        checkpoint = existing(checkpoint)
    cfg = Config.fromfile(config)
    enable_for(cfg)
    cfg.merge_from_dict(options or {})
    check_data(cfg, [f'{split}_dataloader'])
    test = cfg.test_dataloader.dataset
    source = test if split == 'test' else {**_innermost(cfg.train_dataloader.dataset), 'pipeline': test.pipeline}
    set_random_seed(seed)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
        model = MODELS.build(cfg.model)
        dataset = DATASETS.build(source)
        if max_images is not None:
            drawn = np.random.default_rng(seed).permutation(len(dataset))[:max_images]
            dataset = Subset(dataset, sorted(drawn.tolist()))
        collate = dict(collate_fn=dict(type='default_collate'))  # as for training and testing in MMPretrain
        loader = Runner.build_dataloader({**collate, **cfg.test_dataloader, 'dataset': dataset}, seed=seed)
    if checkpoint is None:
        model.init_weights()
    else:
        meta = load_checkpoint(model, checkpoint)
        model._dataset_meta, model._trained_for = meta.get('dataset_meta') or {}, meta.get('mmresattn') or {}
    return model.to(get_device()).eval(), loader


def _innermost(dataset: dict) -> dict:
    """A data set out of what repeats it, keeps it in memory or makes its labels noisy."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset
