"""AttentionNeXt-92 (ResNeXt units, 32x4d) on ImageNet: 52,102,952 parameters, 10.70 G multiply-adds at 224.

The official code has this network; the paper has no figure for it.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/resattn/attentionnext92_imagenet.py 8
"""

_base_ = './attention56_imagenet.py'

model = dict(backbone=dict(arch='attentionnext92'))
