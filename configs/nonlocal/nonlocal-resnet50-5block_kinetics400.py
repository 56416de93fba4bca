"""ResNet-50 with 5 non-local blocks on still frames of Kinetics-400: 31,686,096 parameters, 5.53 G multiply-adds.

What the authors' "C2D" network with 5 blocks computes of a clip that stands still, so that its trained weights come in.
Unlike nonlocal-resnet50-5block_imagenet.py, the pooling of its stem has no padding and rounds down: 55x55 positions.
On clips the authors' page has 73.9 % (32 frames) and 74.4 % (8 frames) top-1 accuracy; for still frames, nothing.
Data: data/kinetics400_frames/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's
batch:

    bash tools/dist_train.sh configs/nonlocal/nonlocal-resnet50-5block_kinetics400.py 8
"""

_base_ = './nonlocal-resnet50-5block_imagenet.py'

model = dict(
    backbone=dict(caffe_pool='floor', norm_cfg=dict(type='BN', eps=1.0000001e-5, requires_grad=True)),
    head=dict(num_classes=400),
)

data_root = '{{$MMRESATTN_DATA:data}}/kinetics400_frames'
data_preprocessor = dict(num_classes=400, mean=[114.75, 114.75, 114.75], std=[57.375, 57.375, 57.375])
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ImageFolders',
        data_root=data_root,
        data_prefix='train',
        pipeline=_base_.train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ImageFolders',
        data_root=data_root,
        data_prefix='val',
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader
