"""Faster R-CNN on ResNet-50 with masks, for your own boxes: train.json and val.json in COCO's format, and images/.

The classes are read from train.json. The backbone starts as torchvision's ResNet-50, which is downloaded.
Data: data/own, a folder or a link, or own in $MMRESATTN_DATA. See docs/detection.md.

    python tools/train.py configs/detection/faster-rcnn_attention-resnet50_own.py
"""

_base_ = './faster-rcnn_attention-resnet50_fpn_1x_coco.py'

data_root = '{{$MMRESATTN_DATA:data}}/own'
own = dict(data_root=data_root, data_prefix=dict(img='images/'), metainfo=dict(classes=None))  # read from train.json
train_dataloader = dict(dataset=dict(**own, ann_file='train.json'))
val_dataloader = dict(dataset=dict(**own, ann_file='val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + '/val.json')
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=0.0025))  # for 2 images a step; MMDetection's 0.02 is for 16
auto_scale_lr = dict(base_batch_size=2)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'))
