"""Attention-56 on ImageNet: 31,810,728 parameters, 6.27 G multiply-adds at 224.

Paper, table 7: 21.76 % top-1 and 5.9 % top-5 error, single crop of 224 (31.9 M, 6.3 G).
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/resattn/attention56_imagenet.py 8
"""

_base_ = [
    '../_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/resattn_imagenet.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResidualAttentionNet', arch='attention56'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=1000, in_channels=2048, loss=dict(type='CrossEntropyLoss'), topk=(1, 5)
    ),
)
