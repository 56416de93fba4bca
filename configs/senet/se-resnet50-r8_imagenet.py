"""SE-ResNet-50 on ImageNet, reduction ratio 8: 30,603,912 parameters, 3.86 G multiply-adds at 224.

SENet paper, table 7: 23.19 % top-1 and 6.64 % top-5 error, single crop of 224 (30.7 M).
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/senet/se-resnet50-r8_imagenet.py 8
"""

_base_ = './se-resnet50-caffe_imagenet.py'

model = dict(backbone=dict(attention=dict(ratio=8)))
