from .attention_branch import AttentionBranchNeck, attention_branch_network  # noqa: F401
from .pay_attention import PayAttention  # noqa: F401
