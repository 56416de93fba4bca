from .attention_visualization_hook import AttentionVisualizationHook
from .checkpoint_hooks import LoadWeightsHook, WholeCheckpointHook
from .corrected_sampler import CorrectedSampler
from .frozen_modules_hook import FrozenModulesHook
from .gate_hook import GateHook
from .layer_decay import BackboneLayerDecayConstructor
from .nonfinite_hook import NonFiniteLossHook
from .prediction_pictures_hook import PredictionPicturesHook
from .replay import ReplayAspectRatioBatchSampler, ReplayHook, ReplaySampler, ReplaySeed
from .report_hook import ReportHook
from .speed import AutocastOptimWrapper, ChannelsLastWeightsHook, CompileBackboneHook
from .stop_hooks import StopOnSignalHook, TimeBudgetHook, TrainingStopped
from .sync_buffers_hook import SyncSavedBuffersHook

__all__ = [
    'AttentionVisualizationHook',
    'AutocastOptimWrapper',
    'BackboneLayerDecayConstructor',
    'ChannelsLastWeightsHook',
    'LoadWeightsHook',
    'CompileBackboneHook',
    'CorrectedSampler',
    'FrozenModulesHook',
    'GateHook',
    'NonFiniteLossHook',
    'PredictionPicturesHook',
    'ReplayAspectRatioBatchSampler',
    'ReplayHook',
    'ReplaySampler',
    'ReplaySeed',
    'ReportHook',
    'StopOnSignalHook',
    'SyncSavedBuffersHook',
    'TimeBudgetHook',
    'TrainingStopped',
    'WholeCheckpointHook',
]
