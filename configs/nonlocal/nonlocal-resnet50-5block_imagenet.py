"""ResNet-50 with 5 non-local blocks on ImageNet: 32,915,496 parameters, 5.56 G multiply-adds at 224.

The blocks of the authors' code after every other residual block of the second and third stages, res3 and res4.
The paper has no numbers on images: on Kinetics videos, table 2c, 5 blocks in ResNet-50 give
73.8 % top-1 and 91.0 % top-5 accuracy (without: 71.8 and 89.7 %).
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/nonlocal/nonlocal-resnet50-5block_imagenet.py 8
"""

_base_ = './nonlocal-resnet50-1block_imagenet.py'

model = dict(backbone=dict(attention=dict(stages=(False, (1, 3), (1, 3, 5), False))))
