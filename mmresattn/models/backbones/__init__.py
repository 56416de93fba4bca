from .attention_resnet import AttentionResNet
from .cifar_bodies import CIFARDenseNet, CIFARResNet, CIFARResNeXt, CIFARWideResNet
from .last_stage import LastStage, without_last_stage
from .pay_attention_vgg import PayAttentionNet
from .residual_attention import ResidualAttention
from .residual_attention_net import ResidualAttentionNet
from .se_bn_inception import SEBNInception

__all__ = [
    'AttentionResNet',
    'CIFARDenseNet',
    'CIFARResNeXt',
    'CIFARResNet',
    'CIFARWideResNet',
    'LastStage',
    'without_last_stage',
    'PayAttentionNet',
    'ResidualAttention',
    'ResidualAttentionNet',
    'SEBNInception',
]
