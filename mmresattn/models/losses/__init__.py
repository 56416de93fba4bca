from .attention_map_loss import AttentionMapLoss, corrected_maps
from .corrected_areas import corrected_areas
from .gradient_penalty import GradientPenalty

__all__ = ['AttentionMapLoss', 'GradientPenalty', 'corrected_areas', 'corrected_maps']
