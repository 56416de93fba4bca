from .attention_map_loss import AttentionMapLoss, corrected_maps

__all__ = ['AttentionMapLoss', 'corrected_maps']
