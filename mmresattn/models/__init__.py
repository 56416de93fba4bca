from .backbones import *  # noqa: F403
from .data_preprocessor import BatchTransformPreprocessor  # noqa: F401
