from .pay_attention import PayAttention  # noqa: F401
