from .attention_branch_detector import AttentionBranchDetector, DetectionBranch, class_heat

__all__ = ['AttentionBranchDetector', 'DetectionBranch', 'class_heat']
