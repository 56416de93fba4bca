"""Attention Branch Network on MMPretrain's trained ResNet-50, ImageNet: 43,584,866 parameters, 7.62 G multiply-adds.

Extractor and perception branch start as resnet50_8xb32_in1k (76.55 % top-1 by MMPretrain), and so does the attention
branch's copy of the last stage; the weights are downloaded when the training starts. Maps and classifiers are new. The
schedule, 30 epochs from a learning rate of 0.01, is a choice made here.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/abn/abn-resnet50-pretrained_imagenet.py 8
"""

_base_ = ['../_base_/datasets/imagenet_abn_bs32.py', '../_base_/schedules/abn_imagenet.py']

model = dict(
    type='AttentionBranchNetwork',
    backbone=dict(
        type='ResNet',
        depth=50,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/'
            'resnet50_8xb32_in1k_20210831-ea4938fc.pth',
            prefix='backbone.',
        ),
    ),
    head=dict(type='AttentionBranchHead', num_classes=1000),
    init_branch=True,
)

optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = dict(milestones=[10, 20])
train_cfg = dict(max_epochs=30)
