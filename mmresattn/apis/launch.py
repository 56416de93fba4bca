"""What the command lines of training and testing share."""

import argparse
import glob
import logging
import os
import os.path as osp
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS, RUNNERS, DefaultScope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..compat import enable_for
from ..compat.cpu_launch import prepare_cpu_launch
from ..compat.cpu_memory import keep_large_blocks
from ..compat.fsdp_resume import allow_fsdp_resume
from ..datasets import check_data, check_dense_data, innermost_data_sets, set_classes, set_num_classes
from ..engine import LoadWeightsHook
from ..weights import (
    CheckpointError,
    check_classifier_weights,
    check_intact,
    drop_classifier_weights,
    existing,
    load_checkpoint,
    lock_work_dir,
)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that MMPretrain's users know from both of its scripts, but for ``--amp``."""
    parser.add_argument('--work-dir', help='folder for logs and results; default: work_dirs/<name of the config>')
    parser.add_argument('--no-pin-memory', action='store_true', help='do not pin memory in dataloaders')
    parser.add_argument('--no-persistent-workers', action='store_true', help='start dataloader workers every epoch')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='change settings of the config: key=value, nested.key=value, key="[a,b]" (no spaces inside)',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')


def read_config(file: str, options: dict | None = None, needs_data: bool = True) -> Config:
    """Read a config for its own data.

    Args:
        file (str): Config file.
        options (dict, optional): Settings to change, ``{'model.head.num_classes': 5}``. ``data_root`` moves every data
            set that reads from the config's ``data_root``.
        needs_data (bool): Whether the data must be there from which a config reads its classes. If not, those that are
            written in it stay where the data is missing. Defaults to True.

    Returns:
        Config: The config, with the classes of its own data.

    Raises:
        FileNotFoundError: If the data is needed and missing.
    """
    cfg = Config.fromfile(file)
    options = options or {}
    if 'data_root' in options:
        _move_data(cfg, options['data_root'])
    cfg.merge_from_dict(options)
    with nullcontext() if needs_data else suppress(FileNotFoundError):
        set_num_classes(cfg)
        set_classes(cfg)
    enable_for(cfg)
    return cfg


def build_model(cfg: Config, checkpoint: str | Path | None = None) -> BaseModel:
    """The model of a config, for which no data is needed.

    Args:
        cfg (Config): The config.
        checkpoint (str | Path, optional): Path or address of its weights, which must fit exactly. Defaults to None: the
            model is not initialised, ``init_weights`` does that.

    Returns:
        BaseModel: In training mode. What its checkpoint knows of data and preprocessing is in ``_dataset_meta`` and
        ``_trained_for``.

    Raises:
        CheckpointError: If the checkpoint is damaged or unsafe, or does not have exactly the weights of the model.
    """
    enable_for(cfg)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        if 'data_preprocessor' in cfg:
            cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
        model = MODELS.build(cfg.model)
    if checkpoint is not None:
        load_trained(model, checkpoint)
    return model


def load_trained(model: BaseModel, checkpoint: str | Path) -> None:
    """Load weights, which must fit exactly, and what the checkpoint knows of data and preprocessing.

    Args:
        model (BaseModel): The model; it gets ``_dataset_meta`` and ``_trained_for``.
        checkpoint (str | Path): Path or address.
    """
    meta = load_checkpoint(model, checkpoint)
    model._dataset_meta, model._trained_for = meta.get('dataset_meta') or {}, meta.get('mmresattn') or {}


def load_config(args: argparse.Namespace) -> Config:
    """Read a config as MMPretrain's scripts do and check what would fail late.

    Args:
        args (argparse.Namespace): With ``config`` and the arguments of :func:`add_common_arguments`.

    Returns:
        Config: The config with work_dir, launcher, defaults of the dataloaders and ``--cfg-options``.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    options = args.cfg_options or {}
    cfg = read_config(args.config, options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or osp.join('work_dirs', Path(args.config).stem)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if (loader := cfg.get(name)) is None:
            continue
        workers = loader.get('num_workers', 0) > 0
        defaults = dict(pin_memory=True, persistent_workers=workers)
        if cfg.get('default_scope') == 'mmpretrain':  # in detection and segmentation images differ in size
            defaults['collate_fn'] = dict(type='default_collate')
        cfg[name] = ConfigDict({**defaults, **loader})
        if args.no_pin_memory or not torch.accelerator.is_available():
            cfg[name].pin_memory = False
        if args.no_persistent_workers:
            cfg[name].persistent_workers = False
    cfg.merge_from_dict(options)  # again: they win over other options, as in MMPretrain
    return cfg


def _move_data(cfg: Config, folder: str) -> None:
    """Let the data sets and evaluators that read from the config's ``data_root`` read from another folder."""
    for name in ('val_evaluator', 'test_evaluator'):
        evaluator = cfg.get(name) or {}
        file = evaluator.get('ann_file') if isinstance(evaluator, dict) else None
        if file and cfg.get('data_root') and file.startswith(f'{cfg.data_root}/'):
            evaluator.ann_file = osp.join(folder, file[len(cfg.data_root) + 1 :])
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for dataset in innermost_data_sets((cfg.get(name) or {}).get('dataset') or {}):
            if dataset.get('data_root') == cfg.get('data_root'):
                dataset.data_root = folder


def use_mixed_precision(cfg: Config) -> None:
    """Let a config train in mixed precision: MMEngine's, or bfloat16 on CPUs, where MMEngine's cannot be built."""
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    if get_device() in ('cpu', 'mps'):
        cfg.optim_wrapper.type = 'AutocastOptimWrapper'
        for key in ('loss_scale', 'dtype'):
            cfg.optim_wrapper.pop(key, None)


def latest_checkpoint(work_dir: str, out_dir: str | None = None) -> str | None:
    """The newest intact checkpoint of a run. Damaged ones are named in the log.

    MMEngine goes by the file ``last_checkpoint``, which is empty after a power cut, and which in a copy of a work dir
    still names a file of the original. Here it only gives the name of a file in the folders of this run.

    Args:
        work_dir (str): Work dir of the run.
        out_dir (str, optional): ``out_dir`` of its checkpoint hook: checkpoints are in a folder there that is named
            after the work dir. Defaults to None.

    Returns:
        str | None: Its path; None if there is none.
    """
    folders = [Path(work_dir)] + ([Path(out_dir, Path(work_dir).resolve().name)] if out_dir else [])
    named = Path(work_dir, 'last_checkpoint')
    name = Path(named.read_text(errors='replace').strip()).name if named.is_file() else ''
    patterns = ['epoch_*.pth', 'iter_*.pth'] + ([glob.escape(name)] if name and '\0' not in name else [])
    paths = {path for folder in folders for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            check_intact(path)
        except CheckpointError as error:
            print_log(f'Skipped: {error}', logger='current', level=logging.WARNING)
        else:
            return str(path)
    return None


def build_runner(cfg: Config, loaders: Sequence[str]) -> Runner:
    """The runner of a config, whose data and initial weights are checked first.

    Args:
        cfg (Config): From :func:`load_config`.
        loaders (Sequence[str]): The dataloaders that will be used, such as ``'test_dataloader'``.

    Returns:
        Runner: MMEngine's, or the config's ``runner_type``.

    Raises:
        FileNotFoundError: If data or a checkpoint is missing.
        CheckpointError, ValueError: If weights of a classifier, with which the model starts, do not fit or are missing.
        ValueError: If there are fewer images to train on than one batch takes.
    """
    enable_for(cfg)
    if cfg.get('strategy', {}).get('type') == 'DeepSpeedStrategy':  # its checkpoints are folders
        pass
    elif cfg.get('load_from'):
        cfg.load_from = existing(cfg.load_from)
    elif cfg.get('resume'):
        out_dir = cfg.get('default_hooks', {}).get('checkpoint', {}).get('out_dir')
        cfg.load_from = latest_checkpoint(cfg.work_dir, out_dir)
        if cfg.load_from is None:
            print(f'--resume: there is no intact checkpoint in {cfg.work_dir}; training starts at its beginning.')
            cfg.resume = False
    if cfg.get('load_from'):  # every weight comes from there
        drop_classifier_weights(cfg.model)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        check_classifier_weights(cfg.model)
    check_data(cfg, loaders)
    check_dense_data(cfg, loaders)
    prepare_cpu_launch(cfg)
    if get_device() == 'cpu':
        keep_large_blocks()
    allow_fsdp_resume(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if 'train_dataloader' in loaders and get_rank() == 0:
        lock_work_dir(cfg.work_dir)
    if 'train_dataloader' in loaders and 'runner_type' not in cfg:
        _check_batches(runner.train_loop.dataloader)
    # Who begins a training with weights may want other classes; who tests or resumes does not. Of a model that a
    # strategy divides, a process sees parts, which are not those of a checkpoint.
    if 'strategy' not in cfg:
        runner.register_hook(LoadWeightsHook('train_dataloader' in loaders and not cfg.get('resume')))
    return runner


def _check_batches(loader: DataLoader) -> None:
    if not len(loader):
        images = f'{len(loader.sampler)} images{" in each process" if get_world_size() > 1 else ""}'
        raise ValueError(
            f'There are {images} to train on, less than a batch of {loader.batch_size}, and drop_last=True drops what '
            f'is less than a batch. Set train_dataloader.batch_size to at most {len(loader.sampler)}, or '
            'train_dataloader.drop_last=False.'
        )
