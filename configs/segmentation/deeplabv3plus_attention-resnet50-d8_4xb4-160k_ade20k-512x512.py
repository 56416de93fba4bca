"""DeepLabV3+ on ResNet-50 with masks for ADE20K: 54,959,068 parameters.

The backbone starts as torchvision's ResNet-50, which is downloaded. It has not been trained here yet. On 4 GPUs:

    bash tools/dist_train.sh configs/segmentation/deeplabv3plus_attention-resnet50-d8_4xb4-160k_ade20k-512x512.py 4
"""

_base_ = './deeplabv3plus_attention56-d8_4xb4-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='attention-resnet50',
        norm_outputs=False,  # its features are activated
        init_cfg=dict(_delete_=True, type='PretrainedTrunk', checkpoint='torchvision://resnet50'),
    )
)
