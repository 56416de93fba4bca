"""SE-ResNet-101 on ImageNet in the official Caffe graph: 49,326,872 parameters, 7.57 G multiply-adds at 224.

SENet paper, table 2: 22.38 % top-1 and 6.07 % top-5 error, single crop of 224 (ResNet-101: 23.17 and 6.52 %).
As se-resnet50-caffe_imagenet.py.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/senet/se-resnet101-caffe_imagenet.py 8
"""

_base_ = './se-resnet50-caffe_imagenet.py'

model = dict(backbone=dict(depth=101))
