"""ResNet-50 with 1 non-local block on ImageNet: 27,658,792 parameters, 4.36 G multiply-adds at 224.

The block of the authors' code (embedded Gaussian, 2x2 pooling before phi and g, biases) before the last residual block
of the third stage, res4. The paper has no numbers on images: on Kinetics videos, table 2c, this place and number of
blocks in ResNet-50 give 72.7 % top-1 and 90.5 % top-5 accuracy (without: 71.8 and 89.7 %).
The recipe is this package's for ImageNet, since the paper has none.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/nonlocal/nonlocal-resnet50-1block_imagenet.py 8
"""

_base_ = [
    '../_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/resattn_imagenet.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='AttentionResNet',
        depth=50,
        attention=dict(
            type='NonLocalAttention',
            stages=(False, False, (-2,), False),  # after the block before the last
            mode='embedded_gaussian',
            sub_sample=True,
            pool_first=True,
            out_bias=True,
            norm_cfg=dict(type='BN'),
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=1000, in_channels=2048, loss=dict(type='CrossEntropyLoss'), topk=(1, 5)
    ),
)
