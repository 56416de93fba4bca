"""Attention-augmented ResNet-34 on ImageNet: 20,745,072 parameters.

Paper: 74.7 % top-1 and 92.0 % top-5 accuracy, single crop of 224 (20.7 M; ResNet-34: 73.6 and 91.5 %).
The first convolution of every block in the last three stages is augmented; keys and values are 0.25 of the channels.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/aaconv/aa-resnet34_imagenet.py 8
"""

_base_ = './aa-resnet50_imagenet.py'

augmented = dict(type='AttentionAugmentedConv', heads=8, kappa=0.25, upsilon=0.25)
model = dict(
    backbone=dict(
        depth=34,
        attention=[
            dict(stages=(False, True, False, False), size=14, pool=True, **augmented),
            dict(stages=(False, False, True, False), size=14, **augmented),
            dict(stages=(False, False, False, True), size=7, **augmented),
        ],
    ),
    head=dict(in_channels=512),
)
