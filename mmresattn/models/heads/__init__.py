from .pay_attention_head import PayAttentionHead  # noqa: F401
