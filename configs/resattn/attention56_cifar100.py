"""Attention-56 on CIFAR-100: 1,053,524 parameters, 0.12 G multiply-adds.

The paper has no figure for it.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/resattn/attention56_cifar100.py
"""

_base_ = './attention56_cifar10.py'

model = dict(head=dict(num_classes=100))

data_root = '{{$MMRESATTN_DATA:data}}/cifar100'
data_preprocessor = dict(num_classes=100, mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418])
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root)))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
