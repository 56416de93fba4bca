"""Bayesian Attention Branch Network on ResNet-110, CIFAR-100: 3,056,786 parameters.

Dropout of 0.3 after every residual block of both branches; 50 passes per prediction, of which the extractor makes one.
The depth of the published network is not known. As in abn-resnet110_cifar100.py, the blocks are bottlenecks.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/abn/abn-bayesian-resnet110_cifar100.py
"""

_base_ = './abn-bayesian-resnet20_cifar100.py'

model = dict(backbone=dict(depth=110))
