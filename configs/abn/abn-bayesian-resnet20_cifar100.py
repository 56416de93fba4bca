"""Bayesian Attention Branch Network on ResNet-20, CIFAR-100: 501,650 parameters.

Dropout of 0.3 after every residual block of both branches; 50 passes per prediction, of which the extractor makes one.
The depth of the published network is not known.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/abn/abn-bayesian-resnet20_cifar100.py
"""

_base_ = ['../_base_/datasets/cifar100_memory_bs128.py', '../_base_/schedules/abn_cifar.py']

model = dict(
    type='BayesianAttentionBranchNetwork',
    backbone=dict(type='CIFARResNet', depth=20),
    head=dict(type='AttentionBranchHead', num_classes=100),
    drop_rate=0.3,
    passes=50,
)

val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(
        type='MultiTasksMetric',
        task_metrics=dict(
            perception_branch=[dict(type='Accuracy', topk=(1, 5))],
            attention_branch=[dict(type='Accuracy', topk=(1, 5))],
        ),
    ),
]
test_evaluator = val_evaluator
train_cfg = dict(val_interval=50)  # a prediction costs as much as about 36 of the plain network's
