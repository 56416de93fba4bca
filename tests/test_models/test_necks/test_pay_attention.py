import pytest
import torch
from mmpretrain.models.backbones import ResNet

from mmresattn.models.backbones import ResidualAttentionNet
from mmresattn.models.layers import attention_maps, edit_attention, record_attention
from mmresattn.models.necks.pay_attention import PayAttention

FEATURES = torch.tensor([[[[1.0, 0.0, 2.0]], [[0.0, 1.0, 1.0]]]], dtype=torch.float64)  # (1,0), (0,1), (2,1)
G = torch.tensor([[[[1.0]], [[2.0]]]], dtype=torch.float64)


def neck(*args, **kwargs):
    torch.manual_seed(0)
    made = PayAttention(*args, **kwargs)
    made.init_weights()
    return made.double().eval()


def inputs(*shapes):
    torch.manual_seed(1)
    return tuple(torch.randn(*shape, dtype=torch.float64) for shape in shapes)


@pytest.mark.parametrize(
    ('score', 'attention', 'attended'),
    [
        ('dp', [0.042010, 0.114195, 0.843795], [1.729599, 0.957990]),
        ('pc', [0.546549, 0.121952, 0.331499], [1.209547, 0.453451]),
    ],
)
def test_worked_example(score, attention, attended):
    made = neck((2, 2), score=score)
    if score == 'pc':
        made.level1.score.weight.data = torch.tensor([0.5, -1.0]).view(1, 2, 1, 1).double()
    with record_attention(made) as maps:
        (out,) = made((FEATURES, G))
    assert maps['level1.map'].flatten().tolist() == pytest.approx(attention, abs=1e-6)
    assert out.flatten().tolist() == pytest.approx(attended, abs=1e-6)


@pytest.mark.parametrize('score', ['pc', 'dp'])
@pytest.mark.parametrize('project', ['global', 'local'])
def test_formula_with_projections(score, project):
    """In float64, with loops over images and positions, against the module."""
    made = neck((3, 5, 5), score=score, project=project)
    l1, l2, g = inputs((2, 3, 4, 6), (2, 5, 2, 3), (2, 5, 1, 1))
    with record_attention(made) as maps:
        outs = made((l1, l2, g))
    assert list(maps) == ['level1.map', 'level2.map'] == list(attention_maps(made))
    assert made.out_channels == [out.shape[1] for out in outs] == ([3, 5] if project == 'global' else [5, 5])
    for k, (features, out) in enumerate(zip((l1, l2), outs), 1):
        level = getattr(made, f'level{k}')
        for n in range(2):
            vector = g[n, :, 0, 0]
            positions = features[n].flatten(1).T
            if k == 1:
                vector = (vector / (1 + 1e-5) ** 0.5).relu()  # batch normalisation in its initial state
                if project == 'global':
                    linear = level.project_global[3]
                    vector = linear.weight @ vector + linear.bias
                else:
                    conv = level.project_local
                    positions = positions @ conv.weight[:, :, 0, 0].T + conv.bias
            if score == 'pc':
                scores = torch.stack([level.score.weight.flatten() @ (position + vector) for position in positions])
            else:
                scores = torch.stack([position @ vector for position in positions])
            attention = (scores - scores.logsumexp(0)).exp()
            assert torch.allclose(maps[f'level{k}.map'][n].flatten(), attention, rtol=1e-10)
            assert torch.allclose(out[n], sum(a * p for a, p in zip(attention, positions)), rtol=1e-10)


def test_attention_sums_to_one():
    made = neck((256, 512, 512, 512)).float()
    maps_in = [x.float() for x in inputs((2, 256, 32, 32), (2, 512, 16, 16), (2, 512, 8, 8), (2, 512, 1, 1))]
    with record_attention(made) as maps:
        made(maps_in)
    assert [tuple(attention.shape) for attention in maps.values()] == [(2, 1, s, s) for s in (32, 16, 8)]
    for attention in maps.values():
        assert torch.allclose(attention.sum((1, 2, 3)), torch.ones(2), atol=1e-5) and (attention >= 0).all()


def test_equal_features_are_attended_equally():
    made = neck((4, 4), score='dp')
    (g,) = inputs((2, 4, 1, 1))
    features = torch.arange(8.0, dtype=torch.float64).view(2, 4, 1, 1).expand(2, 4, 3, 5)
    with record_attention(made) as maps:
        (out,) = made((features, g))
    assert torch.allclose(maps['level1.map'], torch.full((2, 1, 3, 5), 1 / 15, dtype=torch.float64))
    assert torch.allclose(out, features[:, :, 0, 0])


def test_bias_and_global_vector_cancel_with_pc_but_not_with_dp():
    features, g, other = inputs((2, 4, 3, 3), (2, 4, 1, 1), (2, 4, 1, 1))
    pc, dp = neck((4, 4), score='pc'), neck((4, 4), score='dp')
    (out,) = pc((features, g))
    pc.level1.score.bias.data.fill_(7)
    assert torch.allclose(pc((features, g))[0], out, rtol=1e-12)
    assert torch.allclose(pc((features, other))[0], out, rtol=1e-12)
    assert not torch.allclose(dp((features, g))[0], dp((features, other))[0], rtol=1e-2)
    g.requires_grad_()
    pc((features, g))[0].pow(2).sum().backward()
    assert g.grad.abs().max() < 1e-12


def test_edited_attention_decides_what_is_gathered():
    made = neck((2, 2), score='dp')
    with edit_attention(made, {'level1.map': lambda a: torch.full_like(a, 1 / 3)}):
        assert made((FEATURES, G))[0].tolist() == [pytest.approx([1, 2 / 3])]  # the mean of the features
    with edit_attention(made, {'level1.map': torch.tensor([[[[0.0, 0.0, 1.0]]]])}):
        assert made((FEATURES, G))[0].tolist() == [[2, 1]]  # the last of them
    with edit_attention(made, {'level1.map': torch.zeros_like}):
        assert made((FEATURES, G))[0].tolist() == [[0, 0]]


def test_initialisation_is_the_authors():
    torch.manual_seed(0)
    made = PayAttention((1000, 2000, 2000), project='local')
    made.init_weights()
    assert made.level2.score.weight.std().item() == pytest.approx(2**0.5, rel=0.05)
    assert made.level1.project_local.weight.std().item() == pytest.approx((2 / 2000) ** 0.5, rel=0.02)
    assert not made.level1.score.bias.any()


def test_averaged_gradients_of_the_global_vector():
    """A third, where three levels use it; what follows of it in one level alone keeps all."""
    grads = {}
    for average in (False, True):
        made = neck((3, 4, 4, 4), score='dp', global_channels=4, average_gradients=average)
        *locals_, g = inputs((2, 3, 2, 2), (2, 4, 2, 2), (2, 4, 2, 2), (2, 4, 3, 3))
        g.requires_grad_()
        sum(out.pow(2).sum() for out in made((*locals_, g))).backward()
        grads[average] = {'g': g.grad, **{name: p.grad for name, p in made.named_parameters()}}
    for name, gradient in grads[True].items():
        share = 1 / 3 if name == 'g' or name.startswith('to_global') else 1
        assert gradient.any() and torch.allclose(gradient, share * grads[False][name], rtol=1e-10)


def test_on_the_residual_attention_network():
    torch.manual_seed(0)
    arch = dict(base='attention56-cifar', stem_channels=8, channels=(8, 16, 24))
    backbone = ResidualAttentionNet(arch, out_indices=(1, 2), norm_outputs=True).double().eval()
    made = neck((16, 24), levels=(0, 1), score='dp', global_channels=20)
    image = torch.randn(2, 3, 32, 32).double()
    model = torch.nn.Sequential(backbone, made)
    with record_attention(model) as maps:
        outs = model(image)
    assert [tuple(out.shape) for out in outs] == [(2, 16), (2, 24)]
    assert [name for name in maps if name.startswith('1.')] == ['1.level1.map', '1.level2.map']
    assert len(maps) == 3 + 2  # those of the backbone and those of the neck, by one tap
    mean = backbone(image)[1].mean((2, 3))[:, :, None, None]
    again = neck((16, 24, 24), levels=(0, 1), score='dp', global_channels=20)
    for a, b in zip(outs, again((*backbone(image), mean))):  # the last map is taken by its mean
        assert torch.allclose(a, b, rtol=1e-10)


def test_on_resnet():
    with torch.device('meta'):
        backbone = ResNet(50, out_indices=(1, 2, 3))
        made = PayAttention((512, 1024, 2048), global_channels=1024)
        outs = made(backbone(torch.empty(2, 3, 224, 224)))
    assert [tuple(out.shape) for out in outs] == [(2, 512), (2, 1024)] and made.out_channels == [512, 1024]
    assert not list(made.level2.project_global.parameters()) and len(made.level1.project_global) == 4


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (dict(in_channels=(4,)), 'levels are one or more different inputs from 0 to 0, not \\[\\]'),
        (dict(in_channels=(4, 4), levels=(2,)), 'from 0 to 1, not \\[2\\]'),
        (dict(in_channels=(4, 4), levels=(0, 0)), 'not \\[0, 0\\]'),
        (dict(in_channels=(4, 4), score='cosine'), "score is one of .*dot product.*, not 'cosine'"),
        (dict(in_channels=(4, 4), project='both'), "'global' or 'local', not 'both'"),
        (dict(in_channels=(4, 4), global_channels=0), 'global_channels is an integer of at least 1, not 0'),
    ],
)
def test_wrong_arguments_are_named(args, message):
    with pytest.raises(ValueError, match=message):
        PayAttention(**args)


@pytest.mark.parametrize('shapes', [[(1, 4, 2, 2)], [(1, 4, 2, 2), (1, 5, 1, 1)], [(1, 4, 2, 2), (1, 6)]])
def test_inputs_that_do_not_fit_are_named(shapes):
    with pytest.raises(ValueError, match=r'Expected feature maps \(N, C, H, W\) of \[4, 6\] channels, got \[\(1, 4'):
        neck((4, 6))(inputs(*shapes))


def test_training_on_one_image_is_named_where_g_is_normalised():
    one = inputs((1, 4, 2, 2), (1, 6, 1, 1))
    assert neck((4, 6))(one)[0].shape == (1, 4)
    with pytest.raises(ValueError, match='Expected more than 1 value per channel'):
        neck((4, 6)).train()(one)
    assert neck((4, 4)).train()(inputs((1, 4, 2, 2), (1, 4, 1, 1)))[0].shape == (1, 4)
