"""SE-BN-Inception on ImageNet, reduction ratio 16: 11,931,622 parameters, 2.03 G multiply-adds at 224.

SENet paper, table 2: 24.23 % top-1 and 7.14 % top-5 error, single crop of 224 (BN-Inception: 25.38 and 7.89 %).
Hidden widths are exactly C / 16, as in the official file.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/senet/se-bn-inception_imagenet.py 8
"""

_base_ = './se-resnet50-caffe_imagenet.py'

model = dict(backbone=dict(_delete_=True, type='SEBNInception', ratio=16), head=dict(in_channels=1024))
