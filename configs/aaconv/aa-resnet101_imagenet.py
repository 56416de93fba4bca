"""Attention-augmented ResNet-101 on ImageNet: 45,386,728 parameters.

Paper: 78.7 % top-1 and 94.4 % top-5 accuracy, single crop of 224 (45.4 M; ResNet-101: 77.9 and 94.0 %).
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/aaconv/aa-resnet101_imagenet.py 8
"""

_base_ = './aa-resnet50_imagenet.py'

model = dict(backbone=dict(depth=101))
