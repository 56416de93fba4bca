"""UPerNet on Attention-56 for ADE20K: 72,754,156 parameters.

It starts from weights of attention56_imagenet. RAN's authors published none: train that config first. On 4 GPUs:

    bash tools/dist_train.sh configs/segmentation/upernet_attention56_4xb4-160k_ade20k-512x512.py 4 \\
        --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/attention56_imagenet/iter_530000.pth
"""

_base_ = [
    '../_base_/models/upernet_attention56.py',
    '../_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/schedules/segmentation_160k.py',
    '../_base_/segmentation.py',
]

data_preprocessor = dict(size=_base_.crop_size)
model = dict(
    data_preprocessor=data_preprocessor,
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
auto_scale_lr = dict(base_batch_size=16)
