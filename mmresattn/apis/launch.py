"""What the command lines of training and testing share."""

import argparse
import os
import os.path as osp
from collections.abc import Sequence
from pathlib import Path
from zipfile import is_zipfile

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..compat.cpu_launch import prepare_cpu_launch
from ..datasets import check_data


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that MMPretrain's users know from both of its scripts."""
    parser.add_argument('--work-dir', help='folder for logs and results; default: work_dirs/<name of the config>')
    parser.add_argument('--amp', action='store_true', help='mixed precision; on CPUs in bfloat16')
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


def load_config(args: argparse.Namespace) -> Config:
    """Read a config as MMPretrain's scripts do and check what would fail late.

    Args:
        args (argparse.Namespace): With ``config`` and the arguments of :func:`add_common_arguments`.

    Returns:
        Config: The config with work_dir, launcher, defaults of the dataloaders and ``--cfg-options``.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.launcher = args.launcher
    cfg.work_dir = (
        args.work_dir or cfg.get('work_dir') or osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    )
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader is None:
            continue
        workers = loader.get('num_workers', 0) > 0
        defaults = dict(pin_memory=True, persistent_workers=workers, collate_fn=dict(type='default_collate'))
        cfg[name] = ConfigDict({**defaults, **loader})
        if args.no_pin_memory or not torch.accelerator.is_available():
            cfg[name].pin_memory = False
        if args.no_persistent_workers:
            cfg[name].persistent_workers = False
    cfg.merge_from_dict(args.cfg_options or {})  # again: they win over other options, as in MMPretrain
    return cfg


def use_mixed_precision(cfg: Config) -> None:
    """Let a config train in mixed precision: MMEngine's, or bfloat16 on CPUs, where MMEngine's cannot be built."""
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    if get_device() in ('cpu', 'mps'):
        cfg.optim_wrapper.type = 'AutocastOptimWrapper'
        for key in ('loss_scale', 'dtype'):
            cfg.optim_wrapper.pop(key, None)


def latest_checkpoint(work_dir: str) -> str | None:
    """The newest checkpoint of a run that was written to its end.

    MMEngine goes by a file that names its last one; a process killed in the wrong moment leaves that file empty, or
    half a checkpoint.

    Args:
        work_dir (str): Work dir of the run.

    Returns:
        str | None: Its path; None if there is none.
    """
    paths = [path for kind in ('epoch', 'iter') for path in Path(work_dir).glob(f'{kind}_*.pth')]
    named = Path(work_dir, 'last_checkpoint')  # which may lie elsewhere or have another name
    paths += [Path(named.read_text().strip())] if named.exists() else []
    whole = [path for path in paths if is_zipfile(path)]  # the directory of the archive is its end
    return str(max(whole, key=lambda path: path.stat().st_mtime_ns)) if whole else None


def build_runner(cfg: Config, loaders: Sequence[str]) -> Runner:
    """The runner of a config, whose data is checked first.

    Args:
        cfg (Config): From :func:`load_config`.
        loaders (Sequence[str]): The dataloaders that will be used, such as ``'test_dataloader'``.

    Returns:
        Runner: MMEngine's, or the config's ``runner_type``.

    Raises:
        FileNotFoundError: If data is missing.
    """
    check_data(cfg, loaders)
    prepare_cpu_launch(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
