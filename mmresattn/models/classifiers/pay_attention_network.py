"""Learn To Pay Attention, LTPA (Jetley et al., ICLR 2018, arXiv:1804.02391), on any backbone."""

from mmengine.registry import MODELS
from mmpretrain.models.classifiers import ImageClassifier

from ..backbones.cut import build_backbone, feature_shapes


@MODELS.register_module()
class PayAttentionNetwork(ImageClassifier):
    """Learn To Pay Attention on the outputs of any backbone.

    Channels are those of the backbone's outputs; where the width of a level and of the global vector differ, the neck
    projects one of them.

    Example:
        >>> model = dict(
        ...     type='PayAttentionNetwork',
        ...     backbone=dict(type='ResNet', depth=50, out_indices=(2, 3)),
        ...     neck=dict(type='PayAttention', score='dp'),
        ...     head=dict(type='PayAttentionHead', num_classes=1000),
        ... )

    Args:
        backbone (dict): Config of a backbone with one or more ``out_indices``, for timm's with ``features_only=True``.
            Each output is a level of attention; the mean of the last one is the global vector.
        head (dict): Config of the head without its ``in_channels``.
        neck (dict): Config of the neck without its ``in_channels``. Its ``levels`` default to all outputs of more than
            one position. Defaults to ``dict(type='PayAttention')``.
        **kwargs: Arguments of MMPretrain's ``ImageClassifier``.
    """

    def __init__(self, backbone: dict, head: dict, neck: dict = dict(type='PayAttention'), **kwargs) -> None:
        backbone = build_backbone(backbone)
        if hasattr(backbone, 'gap_before_final_norm'):  # ConvNeXt and its relatives in MMPretrain
            backbone.gap_before_final_norm = False
        shapes = feature_shapes(backbone)  # N, C, H, W
        levels = [i for i, shape in enumerate(shapes) if shape[2:].numel() > 1]
        in_channels = [shape[1] for shape in shapes]
        neck = MODELS.build({'type': 'PayAttention', 'levels': levels, **neck, 'in_channels': in_channels})
        head = MODELS.build({**head, 'in_channels': neck.out_channels})
        super().__init__(backbone, neck, head, **kwargs)
