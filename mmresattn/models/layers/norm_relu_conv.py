"""Normalisation, ReLU and convolution that keep only the raw features for the backward pass.

Autograd keeps the input of a BatchNorm and, for the convolution behind it, the activated features too: the same map
twice. What is cheap to form again need not be kept (Rota Bulò et al., CVPR 2018, arXiv:1712.02616).
"""

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.autograd import Function

aten = torch.ops.aten


def norm_relu(norm_cfg: dict, channels: int) -> nn.Sequential:
    """Normalisation and ReLU, the BR of the official network."""
    return nn.Sequential(build_norm_layer(norm_cfg, channels)[1], nn.ReLU(inplace=True))


def norm_relu_convs(norm: nn.Sequential, x: Tensor, *convs: nn.Module) -> list[Tensor]:
    """``[conv(norm(x)) for conv in convs]``, which in training keeps ``x`` alone and forms ``norm(x)`` again.

    Outputs are the same bits, gradients the same to rounding, gradients of gradients too. Where the modules are others
    than BatchNorm2d, ReLU and plain convolutions, or have hooks, and where PyTorch traces or transforms the graph
    (``torch.compile`` chooses itself what to keep), they are simply called.

    Args:
        norm (nn.Sequential): From :func:`norm_relu`.
        x (Tensor): Features (N, C, H, W).
        *convs (nn.Module): Convolutions of the normalised features.

    Returns:
        list[Tensor]: What each convolution gives.
    """
    if not (torch.is_grad_enabled() and norm.training) or _watched_from_outside() or not _is_plain(norm, convs):
        h = norm(x)
        return [conv(h) for conv in convs]
    bn = norm[0]
    if bn.training:
        bn.num_batches_tracked.add_(1)
    weights = [conv.weight for conv in convs]
    return list(_NormReLUConvs.apply(bn, convs, x, bn.weight, bn.bias, *weights))


class ConvSequential(nn.Sequential):
    """A Sequential of convolutions and :func:`norm_relu` in which each of these shares its memory with the next."""

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            x = norm_relu_convs(layer, x, layers.pop(0))[0] if isinstance(layer, nn.Sequential) and layers else layer(x)
        return x


def _watched_from_outside() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()


def _is_plain(norm: nn.Sequential, convs: tuple[nn.Module, ...]) -> bool:
    """Whether the modules do what their types say: a hook, or a type of another package, may do more."""
    kinds = [type(module) for module in norm]
    if kinds != [nn.BatchNorm2d, nn.ReLU] or norm[0].momentum is None or not norm[0].track_running_stats:
        return False
    return not any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        for module in (norm, *norm, *convs)
    ) and all(
        type(conv) is nn.Conv2d and conv.bias is None and conv.padding_mode == 'zeros' and conv.padding != 'same'
        for conv in convs
    )


class _NormReLUConvs(Function):
    @staticmethod
    def forward(ctx, bn, convs, x, gamma, beta, *weights):
        h, mean, rstd = aten.native_batch_norm(
            x, gamma, beta, bn.running_mean, bn.running_var, bn.training, bn.momentum, bn.eps
        )
        # Without statistics of the batch, those of the layer serve.
        stats = (mean, rstd) if bn.training else (bn.running_mean, bn.running_var)
        ctx.save_for_backward(x, gamma, beta, *stats, *weights)
        ctx.training, ctx.eps, ctx.convs = bn.training, bn.eps, convs
        h = h.relu_()
        return tuple(conv(h) for conv in convs)

    @staticmethod
    def backward(ctx, *grads):
        x, gamma, beta, mean, spread, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will differentiate what is computed here
            return None, None, *_plain_gradients(ctx, grads)
        variance = spread.square().reciprocal() - ctx.eps if ctx.training else spread
        h = F.batch_norm(x, mean, variance, gamma, beta, eps=ctx.eps).relu_()
        need_x, need_gamma, need_beta, *need_weights = ctx.needs_input_grad[2:]
        need_h = need_x or need_gamma or need_beta
        grad_h, grad_weights = None, []
        for conv, weight, grad, need in zip(ctx.convs, weights, grads, need_weights):
            dtype = grad.dtype  # of the convolution under autocast, which may not be that of the weight
            into_h, into_weight, _ = aten.convolution_backward(
                grad, h.to(dtype), weight.to(dtype), None, conv.stride, conv.padding, conv.dilation, False, (0, 0),
                conv.groups, (need_h, need, False),
            )  # fmt: skip
            grad_weights.append(into_weight.to(weight.dtype) if need else None)
            if need_h:
                grad_h = into_h if grad_h is None else grad_h.add_(into_h)
        if not need_h:
            return None, None, None, None, None, *grad_weights
        grad_h = grad_h.to(x.dtype)
        grad_h = aten.threshold_backward.grad_input(grad_h, h, 0, grad_input=grad_h)
        del h
        running = (None, None) if ctx.training else (mean, spread)
        batch = (mean, spread) if ctx.training else (None, None)
        into_x = aten.native_batch_norm_backward(
            grad_h, x, gamma, *running, *batch, ctx.training, ctx.eps, (need_x, need_gamma, need_beta)
        )
        return None, None, *into_x, *grad_weights


def _plain_gradients(ctx, grads):
    """The gradients by autograd itself, with a graph of their own."""
    x, gamma, beta, mean, variance, *weights = ctx.saved_tensors
    inputs = [x, gamma, beta, *weights]
    running = (None, None) if ctx.training else (mean, variance)
    h = F.batch_norm(x, *running, gamma, beta, ctx.training, eps=ctx.eps).relu()
    outputs = [
        F.conv2d(h, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        for conv, weight in zip(ctx.convs, weights)
    ]
    wanted = [tensor for tensor, need in zip(inputs, ctx.needs_input_grad[2:]) if need]
    found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True))
    return [next(found) if need else None for need in ctx.needs_input_grad[2:]]
