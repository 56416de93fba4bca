from .attention_branch_network import AttentionBranchHead, AttentionBranchNeck, AttentionBranchNetwork
from .bayesian_attention_branch_network import BayesianAttentionBranchNetwork
from .multi_task_attention_branch import MultiTaskAttentionBranchHead, MultiTaskAttentionBranchNeck
from .pay_attention_network import PayAttentionNetwork

__all__ = [
    'AttentionBranchHead',
    'AttentionBranchNeck',
    'AttentionBranchNetwork',
    'BayesianAttentionBranchNetwork',
    'MultiTaskAttentionBranchHead',
    'MultiTaskAttentionBranchNeck',
    'PayAttentionNetwork',
]
