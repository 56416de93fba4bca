"""Bayesian Attention Branch Network on Wide ResNet-16-2, CIFAR-10: 1,218,606 parameters, 0.24 G multiply-adds.

Dropout of 0.3 in both branches, 50 passes per prediction.
One of the networks that docs/compare.md holds side by side.
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/compare/abn-bayesian-wrn16-2_cifar10.py
"""

_base_ = './abn-wrn16-2_cifar10.py'

model = dict(type='BayesianAttentionBranchNetwork', drop_rate=0.3, passes=50)
