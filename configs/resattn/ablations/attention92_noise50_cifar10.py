"""Attention-92 on CIFAR-10, of whose training labels 50 % are wrong: 1,841,274 parameters, 0.21 G multiply-adds.

Paper: 7.27 % error (table 5).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/ablations/attention92_noise50_cifar10.py
"""

_base_ = './attention92_noise10_cifar10.py'

train_dataloader = dict(dataset=dict(dataset=dict(clean_ratio=0.5)))
