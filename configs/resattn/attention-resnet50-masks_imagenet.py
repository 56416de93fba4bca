"""The masks alone of ResNet-50 with masks, on ImageNet: 36,844,584 parameters, 6.35 G multiply-adds at 224.

It starts as MMPretrain's ResNet-50, with equal scores. Trunk, its normalisations and the classifier stay as they are,
so that whatever changes is due to the masks. It has not been trained here yet.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/resattn/attention-resnet50-masks_imagenet.py 8
"""

_base_ = './attention-resnet50_imagenet.py'

model = dict(backbone=dict(frozen_stages=4))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=0, decay_mult=0)}))
