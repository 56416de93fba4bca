"""Attention-augmented Wide ResNet-28-10 on CIFAR-100: 36,312,660 parameters, 6.17 G multiply-adds.

Paper: 18.4 % top-1 and 4.8 % top-5 error (36.2 M; Wide ResNet-28-10: 19.7 and 5.0 %).
The first convolution of every unit is augmented: 8 heads, keys 0.2 and values 0.1 of the channels.
The paper prints half of 10.9 G multiply-adds: it must attend at a lower resolution somewhere, and does not say where.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/aaconv/aa-wrn28-10_cifar100.py
"""

_base_ = ['../_base_/datasets/cifar100_memory_bs128.py', '../_base_/schedules/abn_cifar.py']

augmented = dict(type='AttentionAugmentedConv', heads=8, kappa=0.2, upsilon=0.1)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='CIFARWideResNet',
        depth=28,
        widen_factor=10,
        drop_rate=0.0,
        attention=[
            dict(stages=(True, False, False), size=32, **augmented),
            dict(stages=(False, True, False), size=16, **augmented),
            dict(stages=(False, False, True), size=8, **augmented),
        ],
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=100, in_channels=640, loss=dict(type='CrossEntropyLoss'), topk=(1, 5)),
)
val_evaluator = dict(_delete_=True, type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

# The recipe of Wide ResNet; the paper's is longer, with batches of 1024 and learnt augmentation.
epochs = 200
optim_wrapper = dict(optimizer=dict(nesterov=True, weight_decay=5e-4))
param_scheduler = dict(milestones=[60, 120, 160], gamma=0.2)
train_cfg = dict(max_epochs=epochs)
