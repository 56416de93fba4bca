"""EfficientNet-Lite0 from ImageNet with soft mask branches around its blocks, fine-tuned on your own photographs:
3,483,062 parameters, 0.21 G multiply-adds.

The masks start with the outputs of the plain network; plain_efficientnet-lite0.py says the rest.

    python tools/train.py configs/photos/residual-attention_efficientnet-lite0.py --cfg-options data_root=FOLDER

To train the masks and the classifier alone: --cfg-options model.backbone.freeze_trunk=True
"""

_base_ = './plain_efficientnet-lite0.py'

model = dict(backbone=dict(_delete_=True, type='ResidualAttention', trunk=_base_.model.backbone))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.mask.': dict(lr_mult=5)}))  # new, as the classifier
