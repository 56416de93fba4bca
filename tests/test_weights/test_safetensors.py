import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file

import mmresattn  # noqa: F401


@pytest.fixture
def net():
    torch.manual_seed(0)
    arch = dict(base='attention56-cifar', channels=(8, 8, 8), stem_channels=8)
    return MODELS.build(dict(type='ResidualAttentionNet', arch=arch))


def test_weights_load_by_path_and_as_pretrained(net, tmp_path):
    path = str(tmp_path / 'net.safetensors')
    weights = {f'backbone.{name}': torch.randn_like(weight.float()) for name, weight in net.state_dict().items()}
    save_file(weights, path)
    net.init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    net.init_weights()
    assert all(
        torch.equal(weight, weights[f'backbone.{name}'].to(weight.dtype)) for name, weight in net.state_dict().items()
    )
    wrapped = torch.nn.Module()
    wrapped.backbone = net
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    load_checkpoint(wrapped, path, map_location='cpu', strict=True)
    assert all(torch.equal(parameter, weights[f'backbone.{name}']) for name, parameter in net.named_parameters())


def test_a_file_that_is_not_there(net, tmp_path):
    with pytest.raises(FileNotFoundError, match='There is no checkpoint .*none.safetensors'):
        load_checkpoint(net, str(tmp_path / 'none.safetensors'))


def test_pickles_still_load(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / 'net.pth')
    load_checkpoint(net, str(tmp_path / 'net.pth'), strict=True)


@pytest.mark.parametrize('content', [b'', b'<html>404</html>', None], ids=['empty', 'text', 'cut'])
def test_a_file_that_is_not_whole(net, tmp_path, content):
    path = tmp_path / 'net.safetensors'
    save_file(net.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(RuntimeError, match=r'net.safetensors \([\d,]+ bytes\) is damaged'):
        load_checkpoint(net, str(path))
