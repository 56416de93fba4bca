from .attention_branch_head import AttentionBranchHead  # noqa: F401
from .multi_task_attention_branch import (  # noqa: F401
    MultiTaskAttentionBranchHead,
    MultiTaskAttentionBranchNeck,
    multi_task_attention_branch_network,
)
from .pay_attention_head import PayAttentionHead  # noqa: F401
