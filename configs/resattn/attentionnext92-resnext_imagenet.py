"""AttentionNeXt-92 with the stem of ResNets on ImageNet: 52,102,952 parameters, 10.70 G multiply-adds at 224.

It starts as MMPretrain's ResNeXt-50 32x4d, with equal scores. It has not been trained here yet.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/resattn/attentionnext92-resnext_imagenet.py 8
"""

_base_ = './attention-resnet50_imagenet.py'

model = dict(
    init_cfg=dict(checkpoint='mmpretrain::resnext50-32x4d_8xb32_in1k'),
    backbone=dict(arch='attentionnext92-resnext'),
)
