"""Importing this module lets MMDetection and MMSegmentation run without MMCV's operators: for ``custom_imports``."""

from . import enable_operators

enable_operators()
