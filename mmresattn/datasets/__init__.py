from .checks import check_data
from .image_arrays import ImageArrays
from .replay import ReplaySampler, ReplaySeed

__all__ = ['ImageArrays', 'ReplaySampler', 'ReplaySeed', 'check_data']
