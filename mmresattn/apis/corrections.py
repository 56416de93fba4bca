"""Training from corrections: one correction, four uses."""

from copy import deepcopy
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ..datasets import Corrections, LoadCorrection, innermost_data_sets
from ..datasets.attention_maps import moves_pixels
from ..utils import type_name

USES = {
    'gate': 'pixels that look like what was erased are replaced by noise before the network sees them',
    'augment': 'what was erased is replaced by noise in the corrected training images (CAIPI)',
    'gradient_penalty': 'the network is penalised for being sensitive to what was erased (right for the right reasons)',
    'map_loss': 'the map of an Attention Branch Network is pulled towards the corrected one',
}
"""What corrections can be used for, and what each use does: ``--help`` and the editor show it, the first as advised."""
EPOCHS = 2
LR_FACTOR = 0.25


def training_config(
    config: str | Path | Config, checkpoint: str | Path, corrections: str | Path, use: str, epochs: int = EPOCHS
) -> Config:
    """The config that trains a classifier on, from corrections.

    Args:
        config (str | Path | Config): Config with which the classifier was trained.
        checkpoint (str | Path): Its checkpoint.
        corrections (str | Path): Folder of corrections, see :class:`~mmresattn.datasets.Corrections`.
        use (str): What the corrections are used for, a key of ``USES``:

            - ``'gate'``: :class:`~mmresattn.models.classifiers.GatedClassifier`, for any classifier;
            - ``'augment'``: :class:`~mmresattn.datasets.ReplaceErased`, for any classifier;
            - ``'gradient_penalty'``: :class:`~mmresattn.models.classifiers.RightReasonsClassifier`, for any
              classifier whose backbone can be cut;
            - ``'map_loss'``: :class:`~mmresattn.models.losses.AttentionMapLoss`, for Attention Branch Networks.
        epochs (int): Number of epochs. Defaults to 2.

    Returns:
        Config: For ``build_runner`` or, dumped to a file, tools/train.py.

    Raises:
        FileNotFoundError: If the folder or its manifest is missing.
        ValueError: If the use is unknown or does not fit the classifier, or its pipeline cannot carry corrections.
    """
    if use not in USES:
        raise ValueError(f'use is one of {sorted(USES)}, not {use!r}.')
    found = Corrections(corrections)
    folder = str(found.folder.resolve())
    cfg = continued(config, checkpoint, epochs)
    model = cfg.model
    layer = None
    if use == 'map_loss':
        if use not in available_uses(model) or 'neck.map' not in found.layers:
            raise ValueError(
                'map_loss needs an AttentionBranchNetwork and corrections of its map, neck.map; the config has a '
                f'{model.type}, and {found.folder} has corrections of {", ".join(found.layers) or "no maps"}. '
                'Use gate, augment or gradient_penalty.'
            )
        layer = 'neck.map'
        model.head.setdefault('map_loss', dict(type='AttentionMapLoss', loss_weight=1.0))
    elif use == 'gate':
        cfg.model = dict(type='GatedClassifier', classifier=_inner(model), masker=dict(type='ErasedAreaMasker'))
        cfg.setdefault('custom_hooks', []).append(dict(type='GateHook', corrections=folder))
    elif use == 'gradient_penalty':
        cfg.model = dict(type='RightReasonsClassifier', classifier=_inner(model))
    for dataset in innermost_data_sets(cfg.train_dataloader.dataset):
        dataset['pipeline'] = _with_corrections(dataset['pipeline'], folder, layer, use == 'augment')
    if use != 'gate':
        cfg.train_dataloader.sampler = dict(type='CorrectedSampler', corrections=folder, shuffle=True)
    return cfg


def available_uses(model: dict) -> dict[str, str]:
    """The part of ``USES`` that fits the classifier of a config: ``map_loss`` needs an attention branch."""
    branch = type_name(model.get('head') or {}) == 'AttentionBranchHead'
    return {use: text for use, text in USES.items() if use != 'map_loss' or branch}


def continued(config: str | Path | Config, checkpoint: str | Path, epochs: int = EPOCHS) -> Config:
    """The config that trains a classifier on as it was: same data, a quarter of the learning rate, no mixing of images.

    Arguments and result are those of :func:`training_config`.
    """
    cfg = deepcopy(config) if isinstance(config, Config) else Config.fromfile(config)
    cfg.load_from, cfg.resume = str(checkpoint), False
    cfg.model.pop('train_cfg', None)  # mixup and cutmix
    cfg.optim_wrapper.optimizer.lr *= LR_FACTOR
    cfg.param_scheduler = dict(type='CosineAnnealingLR', T_max=epochs, end=epochs, convert_to_iter_based=True)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
    cfg.train_dataloader.sampler = dict(type='ReplaySampler', shuffle=True)
    cfg.default_hooks.checkpoint.interval = epochs
    return cfg


def _inner(model: ConfigDict) -> dict:
    """The config of a classifier that is wrapped; the wrapper gets the data preprocessor."""
    return {key: value for key, value in model.items() if key != 'data_preprocessor'}


def _with_corrections(pipeline: list[dict], folder: str, layer: str | None, augment: bool) -> list[dict]:
    """A pipeline that loads corrections beside its images."""
    steps = deepcopy(list(pipeline))
    for step in steps:
        kept = step['transforms'] if step['type'] == 'KeepInMemory' else ()
        if any(moves_pixels(inner) and inner['type'] != 'Resize' for inner in kept):
            raise ValueError(
                'KeepInMemory crops or turns images before corrections are loaded. Move these steps after it.'
            )
    own = next((i for i, step in enumerate(steps) if step['type'] in ('LoadAttentionMap', 'LoadCorrection')), None)
    moving = [i for i, step in enumerate(steps) if moves_pixels(step)]
    if own is not None:
        first, last, transforms = own, own, steps[own].get('transforms', [])
    elif moving:
        first, last = moving[0], moving[-1]
        transforms = steps[first : last + 1]
    else:
        first, last, transforms = len(steps) - 1, len(steps) - 2, []
    pack = steps[-1]
    if pack['type'] != 'PackInputs':
        raise ValueError(f'The training pipeline ends in {pack["type"]}; with corrections it has to end in PackInputs.')
    load = dict(type='LoadCorrection', corrections=folder, transforms=transforms, layer=layer)
    replace = [dict(type='ReplaceErased')] if augment else []
    keys = tuple(pack.get('algorithm_keys', ()))
    pack['algorithm_keys'] = (*keys, *(key for key in LoadCorrection.KEYS if key not in keys))
    return [*steps[:first], load, *replace, *steps[last + 1 :]]
