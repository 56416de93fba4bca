"""SE-ResNet-50 on ImageNet, reduction ratio 4: 35,635,688 parameters, 3.87 G multiply-adds at 224.

SENet paper, table 7: 23.21 % top-1 and 6.63 % top-5 error, single crop of 224 (35.7 M).
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/senet/se-resnet50-r4_imagenet.py 8
"""

_base_ = './se-resnet50-caffe_imagenet.py'

model = dict(backbone=dict(attention=dict(ratio=4)))
