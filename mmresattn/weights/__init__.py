"""How weights come in and go out: one guarded loader, what may be new in a model, publishing."""

from .addresses import existing
from .classifier_weights import ClassifierWeights, check_classifier_weights, drop_classifier_weights
from .compare import differing_tensors
from .files import lock_work_dir, write_whole
from .fitting import compare_weights, load_checkpoint, load_weights
from .loader import CheckpointError, DamagedCheckpoint, UnsafeCheckpoint, check_intact, read_checkpoint
from .pretrained_trunk import PretrainedTrunk
from .publishing import publish
from .record import record

__all__ = [
    'CheckpointError',
    'ClassifierWeights',
    'DamagedCheckpoint',
    'PretrainedTrunk',
    'UnsafeCheckpoint',
    'check_classifier_weights',
    'check_intact',
    'compare_weights',
    'differing_tensors',
    'drop_classifier_weights',
    'existing',
    'load_checkpoint',
    'load_weights',
    'lock_work_dir',
    'publish',
    'read_checkpoint',
    'record',
    'write_whole',
]
