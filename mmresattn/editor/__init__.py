"""Web page for correcting a classifier's attention maps by hand, and the same in Python."""

from .session import AttentionEditor
from .strokes import paint

__all__ = ['AttentionEditor', 'paint']
