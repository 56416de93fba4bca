"""SE-ResNet-101 on ImageNet in PyTorch's graph: 49,326,872 parameters, 7.81 G multiply-adds at 224.

As se-resnet50_imagenet.py. MMPretrain's zoo: 78.26 % top-1 and 94.07 % top-5 accuracy.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/senet/se-resnet101_imagenet.py 8
"""

_base_ = './se-resnet50_imagenet.py'

model = dict(backbone=dict(depth=101))
