"""Attention-augmented ResNet-50 on ImageNet: 25,809,392 parameters.

Paper: 77.7 % top-1 and 93.8 % top-5 accuracy, single crop of 224 (25.8 M; ResNet-50: 76.4 and 92.9 %).
Every 3x3 convolution of the last three stages is augmented: 8 heads, keys 0.2 and values 0.1 of the channels. On 28x28
the attention runs at half of the resolution, as the paper's multiply-adds demand.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/aaconv/aa-resnet50_imagenet.py 8
"""

_base_ = ['../_base_/datasets/imagenet_bs32.py', '../_base_/default_runtime.py']

augmented = dict(type='AttentionAugmentedConv', heads=8, kappa=0.2, upsilon=0.1)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='AttentionResNet',
        depth=50,
        attention=[
            dict(stages=(False, True, False, False), size=14, pool=True, **augmented),
            dict(stages=(False, False, True, False), size=14, **augmented),
            dict(stages=(False, False, False, True), size=7, **augmented),
        ],
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=1000, in_channels=2048, loss=dict(type='CrossEntropyLoss'), topk=(1, 5)
    ),
)

# 100 epochs of batch 1024 are the paper's; the rate, its cosine and the weight decay are chosen here.
train_pipeline = [
    dict(type='ReplaySeed'),
    dict(type='LoadCheckedImage'),
    dict(type='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128, sampler=dict(infinite=False), dataset=dict(pipeline=train_pipeline))

epochs = 100
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.4, momentum=0.9, nesterov=True, weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=epochs - 5, begin=5, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
env_cfg = dict(cudnn_benchmark=True)
