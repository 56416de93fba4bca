"""FCOS with an attention branch after three levels of its FPN finds blood cells: 3,289,806 parameters.

Everything else as in fcos_efficientnet-lite0_bccd.py.

    python tools/train.py configs/detection_branch/fcos_branch_efficientnet-lite0_bccd.py
"""

_base_ = './fcos_efficientnet-lite0_bccd.py'

model = dict(
    type='AttentionBranchDetector',
    detector='FCOS',
    branch=dict(type='DetectionBranch', num_classes=3, in_channels=64, levels=(0, 1, 2)),
)
