"""Attention Branch Network on ResNet-50, ImageNet: 43,584,866 parameters, 7.62 G multiply-adds at 224.

Authors' page: 23.1 % top-1 error at the best epoch (24.1 % without the branch).
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch, or
on one:

    bash tools/dist_train.sh configs/abn/abn-resnet50_imagenet.py 8
    python tools/train.py configs/abn/abn-resnet50_imagenet.py --auto-scale-lr
"""

_base_ = ['../_base_/datasets/imagenet_abn_bs32.py', '../_base_/schedules/abn_imagenet.py']

model = dict(
    type='AttentionBranchNetwork',
    backbone=dict(type='ResNet', depth=50, zero_init_residual=False),
    head=dict(type='AttentionBranchHead', num_classes=1000),
)
