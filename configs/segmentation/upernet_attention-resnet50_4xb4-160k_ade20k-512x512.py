"""UPerNet on ResNet-50 with masks for ADE20K: 77,784,428 parameters.

The backbone starts as torchvision's ResNet-50, which is downloaded. It has not been trained here yet. On 4 GPUs:

    bash tools/dist_train.sh configs/segmentation/upernet_attention-resnet50_4xb4-160k_ade20k-512x512.py 4
"""

_base_ = './upernet_attention56_4xb4-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='attention-resnet50',
        norm_outputs=False,  # its features are activated
        init_cfg=dict(_delete_=True, type='PretrainedTrunk', checkpoint='torchvision://resnet50'),
    )
)
