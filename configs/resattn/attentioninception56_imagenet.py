"""AttentionInception-56 on ImageNet: 31,278,216 parameters, 6.18 G multiply-adds at 224, 11.38 G at 299. Tested at 299.

Paper, table 7: 20.36 % top-1 and 5.29 % top-5 error, single crop of 299 (31.9 M, 6.3 G). The paper gives neither the
unit nor the stem: both are an interpretation (mmresattn.models.layers.InceptionUnit), within 2 % of the paper's
numbers at 224. At 299 the same plan with the same channels cannot have both. The size in training is unknown too;
here it is the 224 of the paper's other networks.
Data: data/imagenet/{train,val}/<class>/*, or under $MMRESATTN_DATA. On 8 GPUs of 32 images, the schedule's batch:

    bash tools/dist_train.sh configs/resattn/attentioninception56_imagenet.py 8
"""

_base_ = './attention56_imagenet.py'

model = dict(backbone=dict(arch='attentioninception56'))

# The paper says no more than 299x299 for the test; the crop is the same 7/8 of the short side as 224 of 256.
test_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='ResizeEdge', scale=342, edge='short'),
    dict(type='CenterCrop', crop_size=299),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
