"""Attention Branch Network on EfficientNet-Lite0 from ImageNet counts red blood cells:
6,086,436 parameters.

Both branches start with the weights of the plain network; plain_efficientnet-lite0_bccd.py says the rest.

    python tools/train.py configs/regression/abn_efficientnet-lite0_bccd.py
"""

_base_ = './plain_efficientnet-lite0_bccd.py'

head = _base_.model.head
model = dict(
    type='AttentionBranchNetwork',
    init_branch=True,
    neck=dict(_delete_=True, type='AttentionBranchRegressionNeck'),
    head=dict(
        _delete_=True,
        type='AttentionBranchRegressionHead',
        num_classes=1,
        loss=head.loss,
        mean=head.mean,
        std=head.std,
    ),
)
new = dict(lr_mult=5)  # as the last layer
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'neck.norm': new, 'neck.class_maps': new, 'neck.class_scores': new, 'neck.attention': new}
    )
)
