"""Faster R-CNN with an attention branch after three levels of its FPN finds blood cells: 4,029,154 parameters.

Everything else as in faster-rcnn_efficientnet-lite0_bccd.py.

    python tools/train.py configs/detection_branch/faster-rcnn_branch_efficientnet-lite0_bccd.py
"""

_base_ = './faster-rcnn_efficientnet-lite0_bccd.py'

model = dict(
    type='AttentionBranchDetector',
    detector='FasterRCNN',
    branch=dict(type='DetectionBranch', num_classes=3, in_channels=64, levels=(0, 1, 2)),
)
