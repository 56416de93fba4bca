"""The break: MMEngine's launcher selects a CUDA device and gives DDP its number, also where there is no GPU."""

import torch
from mmengine.config import Config
from torch import distributed


def prepare_cpu_launch(cfg: Config) -> None:
    """Where there is no accelerator, start the processes of ``torchrun`` with gloo and let DDP stay on the CPU.

    Args:
        cfg (Config): Config with its launcher set; ``model_wrapper_cfg`` is added to it.
    """
    if cfg.launcher != 'pytorch' or torch.accelerator.is_available():
        return
    if not distributed.is_initialized():  # MMEngine keeps a process group that it finds
        distributed.init_process_group('gloo')
    # MMEngine's own defaults but for the device.
    unused = cfg.get('find_unused_parameters', False)
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=unused)
    cfg.setdefault('model_wrapper_cfg', dict(wrapper, device_ids=None))
