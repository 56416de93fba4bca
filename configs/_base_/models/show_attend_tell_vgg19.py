# Show, Attend and Tell as the authors' script for COCO sets it: VGG-19 before its last pooling, 14x14 annotations.
data_preprocessor = dict(
    type='MultiModalDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
model = dict(
    type='ShowAttendTell',
    backbone=dict(
        type='VGG',
        depth=19,
        with_last_pool=False,
        init_cfg=dict(
            type='ClassifierWeights',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/vgg/vgg19_batch256_imagenet_20210208-e6920e4a.pth',
        ),
    ),
    in_channels=512,
    num_words=10_000,
    embed_dims=512,
    hidden_dims=1800,
    attention_layers=2,
    init_layers=2,
)
