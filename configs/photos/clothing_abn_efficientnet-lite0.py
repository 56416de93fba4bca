"""Attention Branch Network on EfficientNet-Lite0 for ten kinds of clothes, with weights: 6,069,630 parameters,
0.46 G multiply-adds.

It starts from plain_efficientnet-lite0, fine-tuned on the same photographs, and trains for two more epochs:

    python tools/train.py configs/photos/clothing_abn_efficientnet-lite0.py --cfg-options \
        load_from=work_dirs/plain_efficientnet-lite0/epoch_5.pth
"""

_base_ = './abn_efficientnet-lite0.py'

epochs = 2
optim_wrapper = dict(optimizer=dict(lr=3e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=epochs - 1, begin=1, end=epochs, eta_min=1e-6, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs)
