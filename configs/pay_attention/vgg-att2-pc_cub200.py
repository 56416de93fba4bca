"""VGG-att2-concat-pc on CUB-200-2011: 19,915,530 parameters.

Attention over layers 10 and 13, scored by <u, l + g>; both together are classified.
A port by others reports 26.75 % error with dot products.
Data: data/cub200/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/vgg-att2-pc_cub200.py
"""

_base_ = './vgg-att2-pc_cifar100.py'

# Starts from the network for CIFAR-100, of which the last layer alone does not fit and is new.
load_from = 'work_dirs/vgg-att2-pc_cifar100/epoch_300.pth'

# Images of 80x80: pooled by 5 after layer 7, so that the two levels have 16x16 and 8x8 positions as for CIFAR.
image_size = 80
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            base='vgg-att',
            stages=(
                [64, 0.3, 64, 128, 0.4, 128, 256, 0.4, 256, 0.4, 256],
                [('max', 5), 512, 0.4, 512, 0.4, 512],
                [('max', 2), 512, 0.4, 512, 0.4, 512],
            ),
        )
    ),
    head=dict(num_classes=200),
)

data_root = '{{$MMRESATTN_DATA:data}}/cub200'
data_preprocessor = dict(num_classes=200)  # mean and deviation stay those of the network that it starts from
resize = dict(type='Resize', scale=(image_size, image_size))
train_pipeline = [
    dict(type='ReplaySeed'),
    dict(type='LoadCheckedImage'),
    resize,
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadCheckedImage'), resize, dict(type='PackInputs')]
train_dataloader = dict(
    num_workers=4,
    collate_fn=dict(type='default_collate'),
    dataset=dict(_delete_=True, type='ImageFolders', data_root=data_root, data_prefix='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=4,
    collate_fn=dict(type='default_collate'),
    dataset=dict(_delete_=True, type='ImageFolders', data_root=data_root, data_prefix='test', pipeline=test_pipeline),
)
test_dataloader = val_dataloader

# The authors' rates, in PyTorch's terms (see vgg-att2-pc_cifar10.py): 0.1, doubled at 30 and 60, then halved every 30.
epochs = 320
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [
    dict(type='MultiStepLR', milestones=[30, 60], gamma=2),
    dict(type='MultiStepLR', milestones=list(range(90, 301, 30)), gamma=0.5),
]
train_cfg = dict(max_epochs=epochs)
