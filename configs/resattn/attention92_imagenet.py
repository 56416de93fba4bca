"""Attention-92 on ImageNet: 52,466,344 parameters, 10.53 G multiply-adds at 224. Trained at 224, tested at 320.

Paper, table 7: 19.5 % top-1 and 4.8 % top-5 error, single crop of 320 (51.3 M, 10.4 G, which the official network
does not reproduce).
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/resattn/attention92_imagenet.py 8
"""

_base_ = './attention56_imagenet.py'

model = dict(backbone=dict(arch='attention92'))

# The paper says no more than 320x320 for the test; the short side is resized to the crop, as for ResNet-200.
test_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='ResizeEdge', scale=320, edge='short'),
    dict(type='CenterCrop', crop_size=320),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
