"""RetinaNet with FPN on AttentionNeXt-56, COCO, 12 epochs: MMDetection's settings for ResNet-50.

RAN's authors published no weights: train attentionnext56_imagenet on ImageNet first.
Without its checkpoint, training does not start. It has not been trained here yet.
Data: data/coco, as for MMDetection, or under $MMRESATTN_DATA.

    bash tools/dist_train.sh configs/detection/retinanet_attentionnext56_fpn_1x_coco.py 8 \\
        --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/attentionnext56_imagenet/CHECKPOINT.pth
"""

_base_ = './retinanet_attention56_fpn_1x_coco.py'

model = dict(backbone=dict(arch='attentionnext56'))
