"""SE-ResNet-50 on ImageNet in the official Caffe graph: 28,088,024 parameters, 3.86 G multiply-adds at 224.

SENet paper, table 2: 23.29 % top-1 and 6.62 % top-5 error, single crop of 224 (ResNet-50: 24.80 and 7.48 %).
The graph of the official file: stride on the first 1x1 convolution, pooling without padding. The recipe of the paper:
batch 1024, rate 0.6, divided by 10 every 30 of 100 epochs; the weight decay of 1e-4 is a choice made here.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 128 images, the schedule's batch:

    bash tools/dist_train.sh configs/senet/se-resnet50-caffe_imagenet.py 8
"""

_base_ = ['../_base_/datasets/imagenet_bs32.py', '../_base_/default_runtime.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='AttentionResNet',
        depth=50,
        style='caffe',
        caffe_pool=True,
        zero_init_residual=False,  # He's initialisation everywhere
        attention=dict(type='SqueezeExcitation', ratio=16),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=1000, in_channels=2048, loss=dict(type='CrossEntropyLoss'), topk=(1, 5)
    ),
)

# No colours are changed. The paper subtracts the mean; here pixels are also divided by their deviation.
train_pipeline = [
    dict(type='ReplaySeed'),
    dict(type='LoadCheckedImage'),
    dict(type='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128, sampler=dict(infinite=False), dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.6, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
env_cfg = dict(cudnn_benchmark=True)
