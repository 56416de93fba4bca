from .attention_figure import attention_figure, reduce_channels

__all__ = ['attention_figure', 'reduce_channels']
