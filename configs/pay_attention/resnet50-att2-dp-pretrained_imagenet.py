"""MMPretrain's trained ResNet-50 under Learn To Pay Attention, ImageNet: 30,786,600 parameters, 4.09 G multiply-adds.

Attention over the last two stages, scored by <l, g>, where g is a projection of the mean over the last stage. In no
paper. The backbone starts as resnet50_8xb32_in1k (76.55 % top-1 by MMPretrain), which is downloaded when the training
starts; attention and classifier are new. The schedule, 30 epochs from a learning rate of 0.01, is a choice made here.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/pay_attention/resnet50-att2-dp-pretrained_imagenet.py 8
"""

_base_ = ['../_base_/datasets/imagenet_bs32.py', '../_base_/schedules/resattn_imagenet.py']

model = dict(
    type='PayAttentionNetwork',
    backbone=dict(
        type='ResNet',
        depth=50,
        out_indices=(2, 3),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/'
            'resnet50_8xb32_in1k_20210831-ea4938fc.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(type='PayAttention', score='dp', global_channels=1024),
    head=dict(type='PayAttentionHead', num_classes=1000, topk=(1, 5)),
)

optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = dict(milestones=[50_000, 100_000])
train_cfg = dict(max_iters=150_000)
