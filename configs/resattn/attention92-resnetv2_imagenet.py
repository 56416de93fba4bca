"""Attention-92 with the stem of ResNetV2 on ImageNet: 52,466,216 parameters, 10.53 G multiply-adds at 224.

It starts as timm's ResNetV2-50, with equal scores. It has not been trained here yet.
It needs timm and huggingface_hub, and takes pixels from -1 to 1, as its source does.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/resattn/attention92-resnetv2_imagenet.py 8
"""

_base_ = './attention-resnet50_imagenet.py'

model = dict(
    init_cfg=dict(checkpoint='timm::resnetv2_50.a1h_in1k'),
    backbone=dict(arch='attention92-resnetv2'),
)
data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])
