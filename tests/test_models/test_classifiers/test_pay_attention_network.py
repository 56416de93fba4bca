import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmresattn.models.layers import record_attention
from mmresattn.weights.fitting import load_weights
from tests.conftest import check_onnx

BACKBONES = {
    'ResNet': dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, out_indices=(2, 3)),
    'ConvNeXt': dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[4, 4, 6, 8]), out_indices=(2, 3)),
    'MobileNetV2': dict(type='MobileNetV2', widen_factor=0.25, out_indices=(4, 7)),
    'timm': dict(type='TIMMBackbone', model_name='test_efficientnet', features_only=True, out_indices=(3, 4)),
    'PayAttentionNet': dict(
        type='PayAttentionNet',
        arch=dict(stages=([4, 4], [('max', 2), 6]), tail=[('max', 4), 6], global_channels=6, gates=None),
        out_indices=(0, 1),
    ),
}


@pytest.mark.parametrize('name', BACKBONES)
def test_any_backbone(name, tmp_path):
    """Fine-tuned from its plain checkpoint: a level per output, every parameter trained, maps by the tap, ONNX."""
    if name == 'timm':
        pytest.importorskip('timm')
    torch.manual_seed(0)
    neck, head = dict(score='dp', dropout=0.0), dict(type='PayAttentionHead', num_classes=3)
    model = MODELS.build(dict(type='PayAttentionNetwork', backbone=BACKBONES[name], neck=neck, head=head))
    model.init_weights()
    if name != 'ConvNeXt':  # which has a new normalisation for its earlier output
        backbone = dict(BACKBONES[name], out_indices=BACKBONES[name]['out_indices'][-1:])
        plain = dict(
            type='ImageClassifier', backbone=backbone, head=dict(type='LinearClsHead', num_classes=3, in_channels=1)
        )
        plain = MODELS.build(plain).state_dict()
        load_weights(model, plain, 'plain.pth', fine_tune=True)
        assert all(torch.equal(value, plain[f'backbone.{key}']) for key, value in model.backbone.state_dict().items())
    x = torch.randn(4, 3, 64, 64)
    model.eval()
    with torch.no_grad(), record_attention(model) as maps:
        levels = [feature for feature in model.backbone(x) if feature.shape[2] > 1]
        model(x)
    assert [key for key in maps] == [f'neck.level{i + 1}.map' for i in range(2)]
    for recorded, feature in zip(maps.values(), levels):
        assert recorded.shape == (4, 1, *feature.shape[2:])
        torch.testing.assert_close(recorded.sum((1, 2, 3)), torch.ones(4))
    model.train()
    samples = [DataSample().set_gt_label(i % 3) for i in range(4)]
    model.parse_losses(model(x, samples, mode='loss'))[0].backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    check_onnx(model, x, tmp_path / 'pay.onnx')
