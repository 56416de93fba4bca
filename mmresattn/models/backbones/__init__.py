from .residual_attention_net import ResidualAttentionNet

__all__ = ['ResidualAttentionNet']
