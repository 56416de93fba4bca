"""UPerNet on ResNet-50 with masks, for your own images and masks; with 150 classes 77,784,428 parameters.

The classes are read from classes.txt. The backbone starts as torchvision's ResNet-50, which is downloaded.
Data: data/own/{images,masks}/{train,val}/* and data/own/classes.txt, a folder or a link, or own in $MMRESATTN_DATA. See
docs/segmentation.md.

    python tools/train.py configs/segmentation/upernet_attention-resnet50_1xb4-4k_own-512x512.py
"""

_base_ = './upernet_attention-resnet50_4xb4-160k_ade20k-512x512.py'

data_root = '{{$MMRESATTN_DATA:data}}/own'
train_pipeline = [
    dict(type='ReplaySeed'),
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
own = dict(_delete_=True, type='BaseSegDataset', data_root=data_root, metainfo=dict(classes=None))  # from classes.txt
train_dataloader = dict(
    dataset=dict(**own, data_prefix=dict(img_path='images/train', seg_map_path='masks/train'), pipeline=train_pipeline),
)
val_dataloader = dict(
    dataset=dict(**own, data_prefix=dict(img_path='images/val', seg_map_path='masks/val'), pipeline=test_pipeline),
)
test_dataloader = val_dataloader

iters = 4000
optim_wrapper = dict(optimizer=dict(lr=0.0025))  # for 4 images a step; MMSegmentation's 0.01 is for 16
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=200, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=1e-5, begin=200, end=iters, by_epoch=False),
]
train_cfg = dict(max_iters=iters, val_interval=500)
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=500, save_best='mIoU', rule='greater'))
