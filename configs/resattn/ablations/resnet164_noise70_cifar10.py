"""ResNet-164 on CIFAR-10, of whose training labels 70 % are wrong: 1,703,258 parameters, 0.25 G multiply-adds.

Paper: 17.21 % error (table 5).
Data: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/ablations/resnet164_noise70_cifar10.py
"""

_base_ = './resnet164_noise10_cifar10.py'

train_dataloader = dict(dataset=dict(dataset=dict(clean_ratio=0.3)))
