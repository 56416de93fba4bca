import pytest
import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from responses import stage_responses
from torch import nn

from mmresattn.models import ResidualAttentionNet
from mmresattn.models.layers import attention_maps, edit_attention

SMALL = dict(base='attention56-cifar', stem_channels=8, channels=(8, 8, 16), modules=(2, 1, 1))


def small(**kwargs):
    """A tiny network whose BatchNorms have statistics."""
    torch.manual_seed(0)
    model = ResidualAttentionNet(**{'arch': SMALL, **kwargs})
    model.init_weights()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.5
        for _ in range(5):
            model(torch.randn(4, 3, 16, 16))
    return model


def classifier(backbone, mean=0.0, std=1.0):
    return ImageClassifier(
        backbone=backbone,
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=16),
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', mean=[mean] * 3, std=[std] * 3, to_rgb=True),
    ).eval()


def batches(images):
    return [dict(inputs=batch, data_samples=[DataSample().set_gt_label(0) for _ in batch]) for batch in images.split(4)]


def images(n=10):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('residual', [True, False])
def test_against_a_loop_over_the_blocks_in_float64(residual):
    model = small(attention_residual_learning=residual)
    found = stage_responses(classifier(model), batches(images().flip(1)))  # in BGR
    model.double()
    expected = {}
    with torch.no_grad():
        x = model.stem(images().double())
        for stage in ('stage1', 'stage2', 'stage3'):
            for name, block in getattr(model, stage).named_children():
                x = block(x)
                expected[f'{stage}.{name}'] = x.abs().mean().item()
            expected[stage] = x.abs().mean().item()
    assert list(found) == list(expected) and found == pytest.approx(expected, rel=1e-5)
    assert [name for name in found if name.startswith('stage1')] == [
        'stage1.unit1', 'stage1.attention1', 'stage1.attention2', 'stage1.unit2', 'stage1'
    ]  # fmt: skip


def test_a_constant_mask_scales_the_trunk():
    """Modules whose units pass their input: masks of 0.5 halve it (naive), or make it 1.5 times as large (residual)."""
    for residual, factor in ((False, 0.5), (True, 1.5)):
        model = small(attention_residual_learning=residual)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.startswith('stage') and 'conv3.weight' in name and 'stage1.unit1' not in name:
                    parameter.zero_()  # a unit is its shortcut alone
        with edit_attention(model, {name: lambda mask: torch.full_like(mask, 0.5) for name in attention_maps(model)}):
            found = stage_responses(classifier(model), batches(images()))
        first = found['stage1.unit1']
        assert found['stage1.attention1'] == pytest.approx(factor * first, rel=1e-5)
        assert found['stage1'] == found['stage1.attention2'] == pytest.approx(factor**2 * first, rel=1e-5)
        assert found['stage2'] == pytest.approx(factor * found['stage2.unit1'], rel=1e-5)


def test_a_plain_network_has_stages_too():
    plain = small(arch=dict(SMALL, modules=(0, 0, 0), units_after=(3, 3, 3)))
    found = stage_responses(classifier(plain), batches(images().flip(1)))
    assert len(found) == 3 * (4 + 1) and not any('attention' in name for name in found)
    with torch.no_grad():
        raw = plain.stage3(plain.stage2(plain.stage1(plain.stem(images()))))
        after_norm = plain(images())[0]
    assert found['stage3'] == pytest.approx(raw.double().abs().mean().item(), rel=1e-6)
    assert found['stage3'] != pytest.approx(after_norm.abs().mean().item(), rel=1e-2)


def test_a_classifier_prepares_its_images():
    pixels = (images() * 40 + 128).clamp(0, 255).byte()
    model = classifier(small(), 100, 50)
    found = stage_responses(model, batches(pixels))
    expected = stage_responses(classifier(model.backbone), batches((pixels.float() - 100) / 50))
    assert found == pytest.approx(expected, rel=1e-5)
    assert not any(module._forward_hooks for module in model.modules())


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match='Linear has no blocks named stageK'):
        stage_responses(classifier(nn.Linear(2, 2)), [])
