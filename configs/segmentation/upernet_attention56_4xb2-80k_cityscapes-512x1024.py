"""UPerNet on Attention-56 for Cityscapes: 72,653,286 parameters.

It starts from weights of attention56_imagenet. RAN's authors published none: train that config first. On 4 GPUs:

    bash tools/dist_train.sh configs/segmentation/upernet_attention56_4xb2-80k_cityscapes-512x1024.py 4 \\
        --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/attention56_imagenet/iter_530000.pth
"""

_base_ = [
    '../_base_/models/upernet_attention56.py',
    '../_base_/datasets/cityscapes.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/schedules/segmentation_80k.py',
    '../_base_/segmentation.py',
]

data_preprocessor = dict(size=_base_.crop_size)
model = dict(data_preprocessor=data_preprocessor)
auto_scale_lr = dict(base_batch_size=8)
