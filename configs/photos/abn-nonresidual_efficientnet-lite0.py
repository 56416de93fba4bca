"""Attention Branch Network whose classifier sees the features times the map, M * g instead of (1 + M) * g:
6,069,630 parameters, 0.46 G multiply-adds.

What the map leaves out does not pass, so the map shows more of what the answer depends on (docs/photos.md).

    python tools/train.py configs/photos/abn-nonresidual_efficientnet-lite0.py --cfg-options data_root=FOLDER
"""

_base_ = './abn_efficientnet-lite0.py'

model = dict(neck=dict(residual=False))
