"""SE-ResNeXt-101 (32x4d) on ImageNet, reduction ratio 16: 48,955,416 parameters, 7.97 G multiply-adds at 224.

SENet paper, table 2: 20.70 % top-1 and 5.01 % top-5 error, single crop of 224 (ResNeXt-101: 21.18 and 5.57 %).
As se-resnext50_imagenet.py.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/senet/se-resnext101_imagenet.py 8
"""

_base_ = './se-resnext50_imagenet.py'

model = dict(backbone=dict(depth=101))
