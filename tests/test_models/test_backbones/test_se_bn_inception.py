import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from mmresattn.models.backbones.se_bn_inception import STAGES, InceptionModule, SEBNInception
from mmresattn.models.layers import edit_attention, record_attention
from tests.conftest import record_if_any

# Joined channels, hidden width and side of the map at 224, module by module.
TABLE = {
    'stage1.3a': (256, 16, 28),
    'stage1.3b': (320, 20, 28),
    'stage2.3c': (576, 36, 14),
    'stage2.4a': (576, 36, 14),
    'stage2.4b': (576, 36, 14),
    'stage2.4c': (608, 38, 14),
    'stage2.4d': (608, 38, 14),
    'stage3.4e': (1056, 66, 7),
    'stage3.5a': (1024, 64, 7),
    'stage3.5b': (1024, 64, 7),
}
ROWS = {name: row for stage in STAGES for name, row in stage.items()}


def randomise(module):
    torch.manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.bias, std=0.1)
    return module.double().eval()


@pytest.mark.parametrize(('ratio', 'parameters', 'macs'), [(16, 11_931_622, 2.0332), (None, 11_285_224, None)])
def test_official_numbers(ratio, parameters, macs):
    with torch.device('meta'):
        backbone, head = SEBNInception(ratio, out_indices=(0, 1, 2)).eval(), nn.Linear(1024, 1000)
        image = torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter, record_if_any(backbone) as maps:
        outs = backbone(image)
        head(outs[-1].mean((2, 3)))
    assert sum(p.numel() for model in (backbone, head) for p in model.parameters()) == parameters
    assert [out.shape[1:] for out in outs] == [(320, 28, 28), (608, 14, 14), (1024, 7, 7)]
    if ratio:
        assert round(counter.get_total_flops() / 2e9, 4) == macs
        assert {name.removesuffix('.se_layer.map'): m.shape[1] for name, m in maps.items()} == {
            name: channels for name, (channels, _, _) in TABLE.items()
        }
    else:
        assert not maps


def test_table_of_modules():
    with torch.device('meta'):
        backbone = SEBNInception().eval()
    seen = {}
    for name in TABLE:

        def look(module, args, out, name=name):
            seen[name] = out.shape[1], module.se_layer.conv1.out_channels, out.shape[2]

        backbone.get_submodule(name).register_forward_hook(look)
    backbone(torch.empty(1, 3, 224, 224, device='meta'))
    assert seen == TABLE
    pooled = [(m.pooling, m.stride) for m in backbone.modules() if isinstance(m, InceptionModule)]
    avg, down = ('avg', 1), ('max', 2)
    assert pooled == [avg, avg, down, avg, avg, avg, avg, down, avg, ('max', 1)]


@pytest.mark.parametrize('name', ['3a', '3c', '5b'])
def test_module_follows_its_formula(name):
    one, two, three, (pooling, projection) = ROWS[name]
    stride = 1 if one else 2
    module = randomise(InceptionModule(24, ROWS[name]))
    state, x = module.state_dict(), torch.randn(2, 24, 6, 4, dtype=torch.float64)

    def unit(x, name, stride=1):
        weight = state[f'{name}.0.weight']
        x = F.conv2d(x, weight, None, stride, padding=weight.shape[-1] // 2)
        norm = [state[f'{name}.1.{key}'] for key in ('running_mean', 'running_var', 'weight', 'bias')]
        return F.batch_norm(x, *norm, eps=1e-5).relu()

    expected = [unit(x, 'branch1.0')] if one else []
    expected.append(unit(unit(x, 'branch2.0'), 'branch2.1', stride))
    expected.append(unit(unit(unit(x, 'branch3.0'), 'branch3.1'), 'branch3.2', stride))
    if stride == 2:  # windows of 3 from 0, 2, 4; what lies beyond the border does not count
        padded = F.pad(x, (0, 1, 0, 1), value=float('-inf'))
        expected.append(padded.unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5)))
    else:
        windows = (
            F.pad(x, (1, 1, 1, 1), value=0.0 if pooling == 'avg' else float('-inf')).unfold(2, 3, 1).unfold(3, 3, 1)
        )
        expected.append(unit(windows.mean((4, 5)) if pooling == 'avg' else windows.amax((4, 5)), 'branch4.0'))
    expected = torch.cat(expected, 1)
    for image in expected:
        assert image.shape == ((one or 0) + two[-1] + three[-1] + (projection or 24), 6 // stride, 4 // stride)
    with record_attention(module) as maps:
        out = module(x)
    assert torch.allclose(out, expected * maps['se_layer.map'], rtol=1e-9, atol=1e-12)
    with edit_attention(module, {'se_layer.map': torch.ones_like}):
        assert torch.allclose(module(x), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('size', [(7, 7), (33, 64), (75, 57)])
def test_any_size(size):
    torch.manual_seed(0)
    backbone = SEBNInception(out_indices=(0, -1)).eval()
    first, last = backbone(torch.randn(1, 3, *size))
    side = [((n - 1) // 2 + 1) // 2 // 2 for n in size]
    assert list(first.shape[2:]) == side
    assert list(last.shape[2:]) == [((n - 1) // 2 + 2) // 2 for n in side]
    assert torch.isfinite(last).all()


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(out_indices=3), r'from -3 to 2, not \[3\]'),
        (dict(frozen_stages=4), 'from -1 to 3'),
        (dict(ratio=0), 'from 1 to 256.*not 0'),
    ],
)
def test_arguments_that_do_not_fit(kwargs, message):
    with pytest.raises(ValueError, match=message), torch.device('meta'):
        SEBNInception(**kwargs)


def test_inputs_that_do_not_fit():
    with torch.device('meta'):
        backbone = SEBNInception(out_indices=0)
        for shape, message in [
            ((1, 1, 32, 32), r'Expected images of shape \(N, 3, H, W\), got \(1, 1, 32, 32\)'),
            ((3, 32, 32), r'Expected images of shape \(N, 3, H, W\)'),
            ((1, 3, 6, 32), '6x32 are too small: this network needs at least 7x7'),
        ]:
            with pytest.raises(ValueError, match=message):
                backbone(torch.empty(shape))


def test_nothing_is_built_past_the_last_output_and_everything_gets_a_gradient_also_with_cp():
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = SEBNInception(out_indices=-3, with_cp=with_cp)
        assert backbone.stages == ['stage1']
        with edit_attention(backbone, {'stage1.3a.se_layer.map': lambda s: 2 * s}):
            loss = backbone(x)[0].square().mean()
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in backbone.parameters())
        results.append([loss, *(p.grad for p in backbone.parameters())])
    assert all(torch.equal(plain, again) for plain, again in zip(*results))


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 3])
def test_frozen_stages_and_norm_eval(frozen_stages):
    with torch.device('meta'):
        backbone = SEBNInception(frozen_stages=frozen_stages)
        evaluated = SEBNInception(norm_eval=True).train()
    assert backbone.train() is backbone
    for name, module in backbone.named_children():
        frozen = (0 if name == 'stem' else int(name[-1])) <= frozen_stages
        assert module.training is not frozen and all(p.requires_grad is not frozen for p in module.parameters())
    assert not any(m.training for m in evaluated.modules() if isinstance(m, _BatchNorm)) and evaluated.stem.training


def test_layer_depth_honours_the_prefix():
    with torch.device('meta'):
        backbone = SEBNInception()
    names = [name for name, _ in backbone.named_parameters()]
    depths = dict(zip(names, (backbone.get_layer_depth(f'net.{name}', 'net.') for name in names)))
    assert set(depths.values()) == {(depth, 12) for depth in range(11)}
    assert depths['stem.0.0.weight'] == (0, 12) and depths['stage2.3c.se_layer.conv1.conv.weight'] == (3, 12)
    assert backbone.get_layer_depth('head.fc.weight', 'net.') == (11, 12)
