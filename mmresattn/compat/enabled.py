"""Importing this module switches the cures on: for ``custom_imports`` of configs."""

from . import enable

enable()
