"""ResNet-50 with masks on ImageNet: 36,844,584 parameters, 6.35 G multiply-adds at 224.

It starts as MMPretrain's ResNet-50, with equal scores. It has not been trained here yet.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/resattn/attention-resnet50_imagenet.py 8
"""

_base_ = [
    '../_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/resattn_pretrained.py',
]

model = dict(
    type='ImageClassifier',
    init_cfg=dict(type='PretrainedTrunk', checkpoint='mmpretrain::resnet50_8xb32_in1k'),  # with its classifier
    backbone=dict(type='ResidualAttentionNet', arch='attention-resnet50', new_masks=True),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=1000, in_channels=2048, loss=dict(type='CrossEntropyLoss'), topk=(1, 5)
    ),
)
