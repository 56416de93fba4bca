"""SE-ResNet-152 on ImageNet in the official Caffe graph: 66,821,848 parameters, 11.29 G multiply-adds at 224.

SENet paper, table 2: 21.57 % top-1 and 5.73 % top-5 error, single crop of 224 (ResNet-152: 22.42 and 6.34 %).
As se-resnet50-caffe_imagenet.py.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/senet/se-resnet152-caffe_imagenet.py 8
"""

_base_ = './se-resnet50-caffe_imagenet.py'

model = dict(backbone=dict(depth=152))
