"""ResNet-50 with 5 non-local blocks that starts as MMPretrain's trained ResNet-50, ImageNet: 32,915,496 parameters.

A block is the identity at first, so that the network starts with the accuracy of ResNet-50. MMPretrain's figure for
that is 76.55 % top-1 (resnet50_8xb32_in1k); the weights are downloaded when the training starts. The schedule, 30
epochs from a learning rate of 0.01, is a choice made here.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/nonlocal/nonlocal-resnet50-5block-pretrained_imagenet.py 8
"""

_base_ = './nonlocal-resnet50-5block_imagenet.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/'
            'resnet50_8xb32_in1k_20210831-ea4938fc.pth',
            prefix='backbone.',
        )
    )
)

optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = dict(milestones=[50_000, 100_000])
train_cfg = dict(max_iters=150_000)
