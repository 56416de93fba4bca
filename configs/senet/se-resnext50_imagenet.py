"""SE-ResNeXt-50 (32x4d) on ImageNet, reduction ratio 16: 27,559,896 parameters, 4.23 G multiply-adds at 224.

SENet paper, table 2: 21.10 % top-1 and 5.49 % top-5 error, single crop of 224 (ResNeXt-50: 22.11 and 5.90 %).
The stride is on the grouped 3x3 convolution; the pooling is that of SE-ResNet-50.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/senet/se-resnext50_imagenet.py 8
"""

_base_ = './se-resnet50-caffe_imagenet.py'

model = dict(backbone=dict(style='pytorch', groups=32, width_per_group=4))
