"""Learn To Pay Attention on EfficientNet-Lite0 from ImageNet, fine-tuned on your own photographs:
3,001,068 parameters, 0.19 G multiply-adds.

The levels of attention are the features at strides 16 and 32; plain_efficientnet-lite0.py says the rest.

    python tools/train.py configs/photos/pay-attention_efficientnet-lite0.py --cfg-options data_root=FOLDER
"""

_base_ = './plain_efficientnet-lite0.py'

model = dict(
    type='PayAttentionNetwork',
    backbone=dict(features_only=True, out_indices=(3, 4)),
    neck=dict(_delete_=True, type='PayAttention', score='pc'),
    head=dict(_delete_=True, type='PayAttentionHead', num_classes=10, loss=_base_.model.head.loss),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'neck.': dict(lr_mult=5), 'head.': dict(lr_mult=5)}))  # new
