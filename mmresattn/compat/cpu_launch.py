"""The break: MMEngine's launcher selects a CUDA device and gives DDP its number, also where there is no GPU."""

import logging

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import distributed

from ..utils import nested_dicts


def prepare_cpu_launch(cfg: Config) -> None:
    """Where there is no accelerator, start the processes of ``torchrun`` with gloo and let DDP stay on the CPU.

    PyTorch's SyncBatchNorm works on GPUs only. It becomes BatchNorm, as in MMEngine with one process, and the log
    says so. The config, whose launcher is set, gets a ``model_wrapper_cfg``.
    """
    if cfg.launcher != 'pytorch' or torch.accelerator.is_available():
        return
    if not distributed.is_initialized():  # MMEngine keeps a process group that it finds
        distributed.init_process_group('gloo')
    layers = [part for part in nested_dicts(cfg.get('model')) if part.get('type') == 'SyncBN']
    for layer in layers:
        layer['type'] = 'BN'
    if layers or cfg.pop('sync_bn', None):
        print_log(
            'SyncBN needs GPUs: it was replaced by BN, with the statistics of each process.',
            logger='current',
            level=logging.WARNING,
        )
    # MMEngine's own defaults but for the device.
    unused = cfg.get('find_unused_parameters', False)
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=unused)
    cfg.setdefault('model_wrapper_cfg', dict(wrapper, device_ids=None))
