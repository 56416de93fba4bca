"""Attention Branch Network on EfficientNet-Lite0 from ImageNet, fine-tuned on your own photographs:
6,069,630 parameters, 0.46 G multiply-adds.

Both branches start with the weights of the plain network; plain_efficientnet-lite0.py says the rest.

    python tools/train.py configs/photos/abn_efficientnet-lite0.py --cfg-options data_root=FOLDER
"""

_base_ = './plain_efficientnet-lite0.py'

model = dict(
    type='AttentionBranchNetwork',
    init_branch=True,
    neck=dict(_delete_=True, type='AttentionBranchNeck'),
    head=dict(_delete_=True, type='AttentionBranchHead', num_classes=10, loss=_base_.model.head.loss),
)
new = dict(lr_mult=5)  # as the classifier
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'neck.norm': new, 'neck.class_maps': new, 'neck.class_scores': new, 'neck.attention': new}
    )
)
