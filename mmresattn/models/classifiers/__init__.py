from .bayesian_attention_branch import BayesianAttentionBranchNetwork  # noqa: F401
