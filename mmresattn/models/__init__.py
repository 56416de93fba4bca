from .backbones import *  # noqa: F403
from .captioners import *  # noqa: F403
from .classifiers import *  # noqa: F403
from .data_preprocessor import BatchTransformPreprocessor  # noqa: F401
from .detectors import *  # noqa: F403
from .heads import *  # noqa: F403
from .losses import *  # noqa: F403
from .necks import *  # noqa: F403
