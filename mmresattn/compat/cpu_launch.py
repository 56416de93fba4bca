"""The break: MMEngine's launcher selects a CUDA device and gives DDP its number, also where there is no GPU."""

import logging

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import distributed


def prepare_cpu_launch(cfg: Config) -> None:
    """Where there is no accelerator, start the processes of ``torchrun`` with gloo and let DDP stay on the CPU.

    PyTorch's SyncBatchNorm works on GPUs only. It becomes BatchNorm, as in MMEngine with one process, and the log
    says so.

    Args:
        cfg (Config): Config with its launcher set; ``model_wrapper_cfg`` is added to it.
    """
    if cfg.launcher != 'pytorch' or torch.accelerator.is_available():
        return
    if not distributed.is_initialized():  # MMEngine keeps a process group that it finds
        distributed.init_process_group('gloo')
    if _without_sync_bn(cfg.get('model')) or cfg.pop('sync_bn', None):
        print_log(
            'SyncBN needs GPUs: it was replaced by BN, with the statistics of each process.',
            logger='current',
            level=logging.WARNING,
        )
    # MMEngine's own defaults but for the device.
    unused = cfg.get('find_unused_parameters', False)
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=unused)
    cfg.setdefault('model_wrapper_cfg', dict(wrapper, device_ids=None))


def _without_sync_bn(part) -> int:
    """Replace every ``SyncBN`` in the config of a model by ``BN``; return their number."""
    if isinstance(part, dict) and part.get('type') == 'SyncBN':
        part['type'] = 'BN'
        return 1
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ()
    return sum(map(_without_sync_bn, inner))
