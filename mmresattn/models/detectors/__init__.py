from .attention_branch_detector import AttentionBranchDetector, DetectionBranch

__all__ = ['AttentionBranchDetector', 'DetectionBranch']
