"""One small file for each break of the stack below, which names the break that it mends.

Importing ``mmresattn`` changes nothing in other packages. :func:`enable` switches the cures on.
"""


def enable() -> None:
    """Switch on the cures for PyTorch, MMEngine and MMPretrain, in this process. Calling it twice does no harm.

    This package's tools and functions call it. A config does by ``custom_imports=dict(imports=['mmresattn',
    'mmresattn.compat.enabled'])``.
    """
    from .checkpoints import allow_mmengine_checkpoints

    allow_mmengine_checkpoints()
