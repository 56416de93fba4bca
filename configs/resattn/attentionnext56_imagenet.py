"""AttentionNeXt-56 (ResNeXt units, 32x4d) on ImageNet: 31,318,824 parameters, 6.42 G multiply-adds at 224.

Paper, table 7: 21.2 % top-1 and 5.6 % top-5 error, single crop of 224 (31.9 M, 6.3 G).
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/resattn/attentionnext56_imagenet.py 8
"""

_base_ = './attention56_imagenet.py'

model = dict(backbone=dict(arch='attentionnext56'))
