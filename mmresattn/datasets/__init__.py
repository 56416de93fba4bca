from .checks import check_data
from .image_arrays import ImageArrays

__all__ = ['ImageArrays', 'check_data']
