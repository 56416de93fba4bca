"""Web page for correcting a classifier's attention maps by hand, and the same in Python."""

from ..datasets.strokes import paint
from .session import AttentionEditor

__all__ = ['AttentionEditor', 'paint']
