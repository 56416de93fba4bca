import pytest
import torch
from torch import nn

from mmresattn.models.layers import (
    MASK_ACTIVATIONS,
    AttentionModule,
    InceptionUnit,
    NormReLU,
    PreActBottleneck,
    ResNeXtUnit,
    SoftMaskBranch,
    edit_attention,
    interpolate,
    record_attention,
)

X = torch.tensor([[[[1.0, 2], [3, 4]], [[0, -1], [2, -3]]]])


@pytest.mark.parametrize(
    ('attention', 'expected'),
    [
        ('mixed', [0.731059, 0.880797, 0.952574, 0.982014, 0.5, 0.268941, 0.880797, 0.047426]),
        ('channel', [1, 0.894427, 0.832050, 0.8, 0, -0.447214, 0.554700, -0.6]),
        # Biased deviation; the unbiased one would give 0.238323 first.
        ('spatial', [0.207240, 0.390023, 0.609977, 0.792760, 0.568896, 0.431104, 0.800073, 0.199927]),
    ],
)
def test_mask_activations_by_number(attention, expected):
    assert torch.allclose(MASK_ACTIVATIONS[attention](X).flatten(), torch.tensor(expected).float(), atol=2e-6)


def test_mask_activations_stay_in_their_range():
    x = torch.randn(2, 8, 6, 7)
    for name in ('mixed', 'spatial'):
        mask = MASK_ACTIVATIONS[name](x)
        assert 0 < mask.min() and mask.max() < 1
    assert torch.allclose(MASK_ACTIVATIONS['channel'](x).norm(dim=1), torch.ones(2, 6, 7))


def test_interpolation_aligns_corners():
    up = interpolate(torch.tensor([[[[0.0, 1], [2, 3]]]]), torch.empty(1, 1, 4, 4))
    assert torch.allclose(up[0, 0, 0], torch.tensor([0, 1 / 3, 2 / 3, 1]))
    assert torch.allclose(up[0, 0, 1], torch.tensor([2 / 3, 1, 4 / 3, 5 / 3]))


def test_pooling_has_no_padding_and_rounds_up():
    pool = SoftMaskBranch(8, poolings=1).pool
    assert pool(torch.arange(16.0).view(1, 1, 4, 4)).flatten().tolist() == [10, 11, 14, 15]
    assert [pool(torch.zeros(1, 1, n, n)).shape[-1] for n in (112, 56, 28, 14, 3, 2)] == [56, 28, 14, 7, 1, 1]


@pytest.mark.parametrize(('poolings', 'expected'), [(3, 8), (2, 5), (1, 2)])
@pytest.mark.parametrize('unit', [PreActBottleneck, ResNeXtUnit, InceptionUnit])
def test_number_of_units(poolings, expected, unit):
    def count(**kwargs):
        branch = SoftMaskBranch(64, poolings, unit=unit, **kwargs)
        return sum(isinstance(module, unit) for module in branch.modules())

    assert count() == expected
    r, d = 3, poolings
    assert count(r=r) == (d - 1) * r + 2 * r + (d - 1) * r + (d - 1)
    assert count(r=r, bottom_units=r) == count(r=r) - r


def test_soft_mask_is_the_official_graph_of_stage_a():
    """Spelt out unit by unit: three poolings, r = 1, 2r units at the lowest level."""
    torch.manual_seed(0)
    branch = SoftMaskBranch(16, poolings=3).double().eval()
    x = torch.randn(2, 16, 17, 12, dtype=torch.float64)
    pool = branch.pool
    d1 = branch.down[0](pool(x))
    d2 = branch.down[1](pool(d1))
    d3 = branch.bottom[1](branch.bottom[0](pool(d2)))
    u2 = interpolate(d3, d2) + branch.skip[1](d2)
    u1 = interpolate(branch.up[1](u2), d1) + branch.skip[0](d1)
    u0 = interpolate(branch.up[0](u1), x)
    norm1, linear1, norm2, linear2 = branch.linear
    assert (d1.shape[2:], d2.shape[2:], d3.shape[2:]) == ((8, 6), (4, 3), (2, 1))
    assert torch.equal(branch(x), linear2(norm2(linear1(norm1(u0)))))


def test_head_of_the_mask():
    kinds = [type(module) for module in SoftMaskBranch(64, 1).linear]
    assert kinds == [NormReLU, nn.Conv2d, NormReLU, nn.Conv2d]
    kinds = [type(module) for module in SoftMaskBranch(64, 1, unit=ResNeXtUnit).linear]
    assert kinds == [nn.Conv2d, NormReLU, nn.Conv2d]  # AttentionNeXt: nothing before linear_1
    assert all(conv.bias is None for conv in SoftMaskBranch(64, 1).modules() if isinstance(conv, nn.Conv2d))


@pytest.mark.parametrize(
    ('unit', 'channels', 'poolings', 'parameters'),
    [
        (PreActBottleneck, 256, 3, 976_896),
        (PreActBottleneck, 512, 2, 3_046_912),
        (PreActBottleneck, 1024, 1, 8_804_352),
        (ResNeXtUnit, 256, 3, 985_600),
        (ResNeXtUnit, 512, 2, 3_068_928),
        (ResNeXtUnit, 1024, 1, 8_857_600),
    ],
)
def test_parameters_of_a_module(unit, channels, poolings, parameters):
    with torch.device('meta'):
        module = AttentionModule(channels, poolings, unit=unit)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters


def test_mask_width_changes_the_units_of_the_mask_alone():
    with torch.device('meta'):
        plain, narrow = AttentionModule(64, 2), AttentionModule(64, 2, mask_width=7)
    assert plain.state_dict().keys() == narrow.state_dict().keys()
    differ = {name for name, p in plain.named_parameters() if p.shape != narrow.get_parameter(name).shape}
    assert differ and all(name.startswith('mask.') and 'linear' not in name for name in differ)
    saved = 2 * 64 * 9 + 9 * (16**2 - 7**2) + 4 * 9  # a unit: its convolutions, and two normalisations
    assert sum(p.numel() for p in plain.parameters()) - sum(p.numel() for p in narrow.parameters()) == 5 * saved


@pytest.mark.parametrize(('residual', 'expected'), [(True, 2.5), (False, 0.5)])
def test_attention_residual_learning_by_number(residual, expected):
    module = AttentionModule(4, 1, attention_residual_learning=residual)
    module.before = module.after = nn.Identity()
    module.trunk = nn.ReLU()
    with edit_attention(module, {'map': lambda mask: torch.full_like(mask, 0.25)}):
        assert module(torch.full((1, 4, 4, 4), 2.0)).unique().tolist() == [expected]


@pytest.mark.parametrize('attention', MASK_ACTIVATIONS)
@pytest.mark.parametrize('residual', [True, False])
def test_without_its_mask_a_module_is_its_trunk_or_nothing(attention, residual):
    torch.manual_seed(0)
    module = AttentionModule(16, 2, attention=attention, attention_residual_learning=residual).eval()
    x = torch.randn(2, 16, 9, 11)
    with record_attention(module) as maps:
        module(x)
    assert maps['map'].shape == (2, 16, 9, 11)
    with edit_attention(module, {'map': torch.zeros_like}):
        out = module(x)
    trunk = module.trunk(module.before(x))
    assert torch.equal(out, module.after(trunk if residual else torch.zeros_like(trunk)))


def test_p_t_r_are_numbers_of_units():
    module = AttentionModule(16, 2, p=2, t=4, r=3)
    assert (len(module.before), len(module.trunk), len(module.after)) == (2, 4, 2)


def test_unknown_attention():
    with pytest.raises(ValueError, match="'mixed', 'channel', 'spatial'"):
        AttentionModule(16, 1, attention='temporal')


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_channel_attention_of_nothing_is_nothing(dtype):
    """A position whose channels are all 0, as behind a ReLU without bias: 0 and not 0 / 0, in every type."""
    x = torch.tensor([0, 0, 3, -4], dtype=dtype).view(1, 2, 1, 2).permute(0, 3, 1, 2).contiguous()
    expected = torch.tensor([0, 0.6, 0, -0.8], dtype=dtype).view(1, 2, 2, 1)
    assert torch.equal(MASK_ACTIVATIONS['channel'](x), expected)


@pytest.mark.parametrize(('attention', 'poolings', 'least'), [('mixed', 2, 4), ('channel', 0, 1), ('spatial', 0, 2)])
def test_features_that_are_too_small_are_named(attention, poolings, least):
    module = AttentionModule(8, poolings, attention=attention).eval()
    assert module(torch.randn(1, 8, least, least)).isfinite().all()
    for shape in [(least - 1, 9), (9, least - 1)]:
        with pytest.raises(ValueError, match=rf'Features of {shape[0]}x{shape[1]} .*at least {least}x{least}'):
            module(torch.randn(1, 8, *shape))


@pytest.mark.parametrize('field', ['poolings', 'p', 't', 'r', 'bottom_units'])
@pytest.mark.parametrize('value', [-1, 1.5])
def test_numbers_of_units_are_integers(field, value):
    with pytest.raises(ValueError, match=f'{field} is an integer of at least 0, not {value}'):
        AttentionModule(**{'channels': 8, 'poolings': 1, field: value})
