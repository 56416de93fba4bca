"""ResNet-18 with masks on ImageNet: 16,292,776 parameters, 2.43 G multiply-adds at 224.

It starts as MMPretrain's ResNet-18, with equal scores. It has not been trained here yet.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/resattn/attention-resnet18_imagenet.py 8
"""

_base_ = './attention-resnet50_imagenet.py'

model = dict(
    init_cfg=dict(checkpoint='mmpretrain::resnet18_8xb32_in1k'),
    backbone=dict(arch='attention-resnet18'),
    head=dict(in_channels=512),
)
