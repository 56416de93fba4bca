import pytest
import torch
from mmpretrain.models.backbones import ResNet, ResNetV1d

import mmresattn  # noqa: F401


def test_resnets_are_built_on_the_meta_device():
    with torch.device('meta'):
        parameters = sum(p.numel() for p in ResNet(50).parameters())
    assert parameters == 25_557_032 - (2048 * 1000 + 1000)  # of the classifier, less its linear layer


def test_their_drop_path_rates_are_as_before():
    with torch.device('meta'):
        meta = ResNetV1d(depth=18, drop_path_rate=0.7)
    for model in (meta, ResNetV1d(depth=18, drop_path_rate=0.7)):
        rates = [getattr(block.drop_path, 'drop_prob', 0) for i in range(1, 5) for block in getattr(model, f'layer{i}')]
        assert rates == pytest.approx([0.1 * i for i in range(8)])


def test_other_tensors_stay_on_the_device_of_the_context():
    with torch.device('meta'):
        model = ResNet(18, drop_path_rate=0.1)
        assert torch.linspace(0, 1, 3).is_meta  # outside of the constructor
    assert all(p.is_meta for p in model.parameters())
