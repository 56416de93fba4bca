"""ResNet-34 with masks on ImageNet: 28,893,864 parameters, 4.42 G multiply-adds at 224.

It starts as MMPretrain's ResNet-34, with equal scores. It has not been trained here yet.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/resattn/attention-resnet34_imagenet.py 8
"""

_base_ = './attention-resnet50_imagenet.py'

model = dict(
    init_cfg=dict(checkpoint='mmpretrain::resnet34_8xb32_in1k'),
    backbone=dict(arch='attention-resnet34'),
    head=dict(in_channels=512),
)
