from .attention_branch_network import AttentionBranchHead, AttentionBranchNeck, AttentionBranchNetwork
from .attention_branch_regression import AttentionBranchRegressionHead, AttentionBranchRegressionNeck, RegressionHead
from .bayesian_attention_branch_network import BayesianAttentionBranchNetwork
from .gated_classifier import ErasedAreaMasker, GatedClassifier
from .multi_task_attention_branch import MultiTaskAttentionBranchHead, MultiTaskAttentionBranchNeck
from .pay_attention_network import PayAttentionNetwork
from .right_reasons_classifier import RightReasonsClassifier
from .wrapped_classifier import WrappedClassifier

__all__ = [
    'AttentionBranchHead',
    'AttentionBranchNeck',
    'AttentionBranchNetwork',
    'AttentionBranchRegressionHead',
    'AttentionBranchRegressionNeck',
    'RegressionHead',
    'BayesianAttentionBranchNetwork',
    'ErasedAreaMasker',
    'GatedClassifier',
    'MultiTaskAttentionBranchHead',
    'MultiTaskAttentionBranchNeck',
    'PayAttentionNetwork',
    'RightReasonsClassifier',
    'WrappedClassifier',
]
