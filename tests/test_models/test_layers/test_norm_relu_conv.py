import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from mmresattn.models.backbones import ResidualAttentionNet
from mmresattn.models.layers import AttentionModule, InceptionUnit, NormReLU, PreActBottleneck, norm_relu
from mmresattn.models.layers import norm_relu_conv as lean
from mmresattn.models.layers.norm_relu_conv import norm_relu_convs


def layers(dtype=torch.float64, affine=True, n=2):
    torch.manual_seed(0)
    norm = norm_relu(dict(type='BN'), 4)
    if not affine:
        norm[0] = nn.BatchNorm2d(4, affine=False)
    else:
        nn.init.normal_(norm[0].weight)  # of both signs
        nn.init.normal_(norm[0].bias)
    convs = [nn.Conv2d(4, 6, 1, bias=False), nn.Conv2d(4, 8, 3, 2, padding=2, dilation=2, groups=2, bias=False)][:n]
    return nn.ModuleList([norm, *convs]).to(dtype)


def plainly(norm, x, *convs):
    h = norm(x)
    return [conv(h) for conv in convs]


def run(function, modules, x, weights=(1.0, 0.3)):
    modules.zero_grad()
    x = x.detach().clone().requires_grad_()
    outs = function(modules[0], x, *modules[1:])
    sum(w * out.pow(3).sum() for w, out in zip(weights, outs)).backward()
    state = {**dict(modules.named_buffers()), **{n: p.grad for n, p in modules.named_parameters()}, 'x': x.grad}
    return outs, {name: None if t is None else t.clone() for name, t in state.items()}


@pytest.mark.parametrize('affine', [True, False])
@pytest.mark.parametrize('eval_norm', [False, True])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_same_values_and_gradients_as_the_plain_layers(affine, eval_norm, layout):
    modules, other = layers(affine=affine), layers(affine=affine)
    x = torch.randn(3, 4, 7, 6, dtype=torch.float64).to(memory_format=layout)
    for each in (modules, other):
        each[0][0].running_mean.fill_(0.3)
        each[0][0].train(not eval_norm)
    outs, found = run(norm_relu_convs, modules, x)
    expected_outs, expected = run(plainly, other, x)
    assert type(outs[0].grad_fn).__name__ == '_NormReLUConvsBackward'
    assert all(torch.equal(a, b) for a, b in zip(outs, expected_outs))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize('eval_norm', [False, True])
def test_gradients_of_gradients(eval_norm):
    modules = layers()
    modules[0][0].train(not eval_norm)
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64, requires_grad=True)

    def penalty(function):
        (grad,) = torch.autograd.grad(
            sum(o.pow(3).sum() for o in function(modules[0], x, *modules[1:])), x, create_graph=True
        )
        return torch.autograd.grad(grad.square().sum(), [x, *modules.parameters()])

    for found, expected in zip(penalty(norm_relu_convs), penalty(plainly)):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('frozen', ['0', '1', '0.0.weight', 'x', 'all but 1'])
def test_only_what_is_trained_gets_a_gradient(frozen):
    modules, other = layers(), layers()
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64)
    for each in (modules, other):
        for name, parameter in each.named_parameters():
            rest = frozen == 'all but 1' and not name.startswith('1.')
            parameter.requires_grad = not (name.startswith(frozen) or rest)
    grads = []
    for function, each in ((norm_relu_convs, modules), (plainly, other)):
        leaf = x.clone().requires_grad_(frozen not in ('x', 'all but 1'))
        sum(out.pow(3).sum() for out in function(each[0], leaf, *each[1:])).backward()
        grads.append([leaf.grad, *(p.grad for p in each.parameters())])
    for found, expected in zip(*grads):
        assert (found is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_autocast_as_the_plain_layers():
    modules, other = layers(torch.float32), layers(torch.float32)
    x = torch.randn(3, 4, 7, 6)
    with torch.autocast('cpu', torch.bfloat16):
        outs, expected = (run(f, each, x.bfloat16()) for f, each in ((norm_relu_convs, modules), (plainly, other)))
    assert outs[0][0].dtype == torch.bfloat16 and torch.equal(outs[0][0], expected[0][0])
    for name, value in expected[1].items():
        assert outs[1][name].dtype == value.dtype
        torch.testing.assert_close(
            outs[1][name].double(), value.double(), rtol=0.1, atol=0.05 * value.abs().max().item() + 1e-6
        )


@pytest.mark.parametrize('place', ['conv', 'global', 'forward'])
def test_hooks_and_replaced_forwards_are_called(place):
    modules, calls = layers(n=1), []
    conv, handle = modules[1], None
    if place == 'forward':
        plain = conv.forward
        conv.forward = lambda x: calls.append(x) or plain(x)
    else:
        register = register_module_forward_hook if place == 'global' else conv.register_forward_hook
        handle = register(lambda module, *args: calls.append(args) if module is conv else None)
    try:
        norm_relu_convs(modules[0], torch.randn(2, 4, 5, 4, dtype=torch.float64), conv)
    finally:
        if handle is not None:
            handle.remove()
    assert len(calls) == 1


def test_recompute_is_a_switch():
    modules, other = layers(), layers()
    modules[0].recompute = False
    x = torch.randn(3, 4, 7, 6, dtype=torch.float64)
    outs, found = run(norm_relu_convs, modules, x)
    expected_outs, expected = run(plainly, other, x)
    assert type(outs[0].grad_fn).__name__ == 'ConvolutionBackward0'
    assert all(torch.equal(a, b) for a, b in zip(outs, expected_outs))
    assert all(torch.equal(found[name], value) for name, value in expected.items())

    kept = []
    for recompute in (True, False):
        net = ResidualAttentionNet('attention56-cifar', recompute_norms=recompute)
        assert {m.recompute for m in net.modules() if isinstance(m, NormReLU)} == {recompute}
        kept.append(saved(net, torch.randn(2, 3, 32, 32))[0])
    assert kept[0] < 0.75 * kept[1]


def test_findings_K6_1_forward_mode_gives_the_directional_derivative():
    """Forward mode against a central difference, which needs no autograd."""
    modules = layers()
    x, direction = torch.randn(2, 2, 4, 5, 4, dtype=torch.float64)
    with forward_ad.dual_level():
        outs = norm_relu_convs(modules[0], forward_ad.make_dual(x, direction), *modules[1:])
        tangents = [forward_ad.unpack_dual(out).tangent for out in outs]
    step = 1e-6
    ahead, behind = (plainly(modules[0], x + s * direction, *modules[1:]) for s in (step, -step))
    for tangent, a, b in zip(tangents, ahead, behind):
        torch.testing.assert_close(tangent, (a - b) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('eval_norm', [False, True])
def test_findings_K6_1_the_kernels_are_those_of_the_plain_layers(eval_norm):
    """Normalisation goes where F.batch_norm sends it: on a GPU to cuDNN."""
    modules, calls = layers(), []
    modules[0][0].train(not eval_norm)
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64)

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append(func)
            return func(*args, **kwargs or {})

    forwards = []
    for function in (norm_relu_convs, plainly):
        with Record():
            function(modules[0], x, *modules[1:])
        forwards.append([call for call in calls if 'detach' not in str(call)])
        calls.clear()
    assert forwards[0] == forwards[1]


def test_functional_gradients():
    unit = PreActBottleneck(8, 8).double()
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    parameters = dict(unit.named_parameters())

    def loss(parameters, buffers):
        return torch.func.functional_call(unit, {**parameters, **buffers}, (x,)).pow(2).sum(), buffers

    grads, _ = torch.func.grad(loss, has_aux=True)(parameters, dict(unit.named_buffers()))
    unit(x).pow(2).sum().backward()
    for name, parameter in unit.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('layer', [PreActBottleneck(16, 16), PreActBottleneck(16, 32, 2, projection=True),
                                   InceptionUnit(16, 16), AttentionModule(16, 2)])  # fmt: skip
def test_whole_layers_give_the_gradients_of_plain_layers(layer, monkeypatch):
    layer = layer.double()
    x = torch.randn(2, 16, 9, 8, dtype=torch.float64)
    grads = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(lean, '_is_plain', lambda *_: False)
        layer.zero_grad()
        layer(x).pow(2).sum().backward()
        grads.append([p.grad for p in layer.parameters()])
    for found, expected in zip(*grads):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def saved(layer, x):
    """Bytes of what autograd keeps of a forward pass, but for the parameters."""
    own, found = {p.untyped_storage().data_ptr() for p in layer.parameters()}, {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = layer(x)
    return sum(found.values()), out


def test_a_unit_keeps_its_features_once():
    """Input and the two maps of a quarter of its channels, 1.5 times the input; plain layers keep twice that."""
    unit, x = PreActBottleneck(32, 32), torch.randn(4, 32, 16, 16)
    bytes, _ = saved(unit, x)
    statistics = 2 * 4 * (32 + 8 + 8)
    assert bytes == 1.5 * x.nbytes + statistics
