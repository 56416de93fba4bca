from .attention_branch_head import AttentionBranchHead  # noqa: F401
from .pay_attention_head import PayAttentionHead  # noqa: F401
