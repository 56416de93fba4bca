"""One small file for each break of the stack below, which names the break that it mends.

Importing ``mmresattn`` changes nothing in other packages. :func:`enable` switches the cures on.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # whether MMEngine is there is checked after this import
    from mmengine.config import Config


@cache
def enable() -> None:
    """Switch on the cures for MMEngine's checkpoints and MMPretrain's backbones, in this process.

    This package's tools and functions call it. A config does by ``custom_imports=dict(imports=['mmresattn',
    'mmresattn.compat.enabled'])``.
    """
    from .checkpoints import guard_checkpoints
    from .meta_device import allow_meta_resnets

    guard_checkpoints()
    allow_meta_resnets()


@cache
def enable_operators() -> None:
    """Let MMDetection and MMSegmentation run without MMCV's compiled operators, in this process.

    A config does by ``'mmresattn.compat.operators_enabled'`` in its ``custom_imports``.
    """
    from .mmcv_ops import allow_missing_operators

    allow_missing_operators()


def enable_for(cfg: Config) -> None:
    """Switch on what a config needs: the operators only for MMDetection and MMSegmentation."""
    enable()
    if cfg.get('default_scope') in ('mmdet', 'mmseg'):
        enable_operators()
