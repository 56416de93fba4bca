"""Plain torch modules: readable, and usable, without MMEngine's runner."""

from .attention_augmented_conv import AttentionAugmentedConv
from .attention_map import (
    AttentionMap,
    TransformerMap,
    attention_maps,
    check_has_attention,
    checkpoint,
    edit_attention,
    record_attention,
)
from .attention_module import (
    MASK_ACTIVATIONS,
    AttentionModule,
    SoftMaskBranch,
    channel_attention,
    interpolate,
    mixed_attention,
    spatial_attention,
)
from .class_heat import class_heat
from .non_local import NonLocalAttention
from .norm_relu_conv import NormReLU, norm_relu
from .residual_units import UNITS, BasicUnit, BottleneckUnit, InceptionUnit, PreActBottleneck, ResNeXtUnit
from .squeeze_excitation import SqueezeExcitation
from .transformer_attention import attention_rollout

__all__ = [
    'MASK_ACTIVATIONS',
    'UNITS',
    'AttentionAugmentedConv',
    'AttentionMap',
    'AttentionModule',
    'BasicUnit',
    'BottleneckUnit',
    'InceptionUnit',
    'NonLocalAttention',
    'NormReLU',
    'PreActBottleneck',
    'ResNeXtUnit',
    'SoftMaskBranch',
    'SqueezeExcitation',
    'TransformerMap',
    'attention_maps',
    'attention_rollout',
    'channel_attention',
    'check_has_attention',
    'checkpoint',
    'class_heat',
    'edit_attention',
    'interpolate',
    'mixed_attention',
    'norm_relu',
    'record_attention',
    'spatial_attention',
]
