"""Normalisation, ReLU and convolution that store only the raw features for the backward pass.

Autograd stores the input of a BatchNorm and, for the convolution behind it, the activated features too: the same map
twice. The second is cheap to compute again (Rota Bulò et al., CVPR 2018, arXiv:1712.02616).
"""

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.autograd import Function, forward_ad
from torch.nn.modules.module import _has_any_global_hook as _has_global_module_hooks

aten = torch.ops.aten


class NormReLU(nn.Sequential):
    """Normalisation and ReLU, the BR of the official network; :func:`norm_relu` makes one.

    Attributes:
        recompute (bool): Whether :func:`norm_relu_convs` recomputes the output in the backward pass. True saves memory,
            False saves time.
    """

    recompute = True


def norm_relu(norm_cfg: dict, channels: int) -> NormReLU:
    """Normalisation and ReLU of ``channels`` channels."""
    return NormReLU(build_norm_layer(norm_cfg, channels)[1], nn.ReLU(inplace=True))


def norm_relu_convs(norm: NormReLU, x: Tensor, *convs: nn.Module) -> list[Tensor]:
    """``[conv(norm(x)) for conv in convs]``; in training only ``x`` is kept, and ``norm(x)`` is computed again.

    Outputs are bit-identical to those of the plain layers, gradients and second derivatives equal up to rounding. The
    layers are simply called one after the other if ``norm.recompute`` is False, if they are not BatchNorm2d, ReLU and
    plain convolutions, if they have hooks, and under forward-mode differentiation, transforms of ``torch.func``,
    tracing and ``torch.compile`` (which chooses by itself what to keep).

    Args:
        norm (NormReLU): From :func:`norm_relu`.
        x (Tensor): Features (N, C, H, W).
        *convs (nn.Module): Convolutions of the normalised features.

    Returns:
        list[Tensor]: Output of each convolution.
    """
    if (
        not (torch.is_grad_enabled() and norm.training and norm.recompute)
        or _is_transformed()
        or (not _is_plain(norm, x, convs))
        or x.numel() == x.shape[1]  # a single value per channel, for which BatchNorm raises an error
    ):
        h = norm(x)
        return [conv(h) for conv in convs]
    bn = norm[0]
    if bn.training:
        bn.num_batches_tracked.add_(1)
    weights = [conv.weight for conv in convs]
    return list(_NormReLUConvs.apply(bn, convs, x, bn.weight, bn.bias, *weights))


class ConvSequential(nn.Sequential):
    """A Sequential of convolutions and :func:`norm_relu` that calls :func:`norm_relu_convs` for each pair of them."""

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            x = norm_relu_convs(layer, x, layers.pop(0))[0] if isinstance(layer, NormReLU) and layers else layer(x)
        return x


def _is_transformed() -> bool:
    """Whether PyTorch traces the graph, or differentiates it in another way than backward."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def _is_plain(norm: NormReLU, x: Tensor, convs: tuple[nn.Module, ...]) -> bool:
    """Whether the modules do what their types say: a hook, or a type of another package, may do more."""
    kinds = [type(module) for module in norm]
    if kinds != [nn.BatchNorm2d, nn.ReLU] or norm[0].momentum is None or not norm[0].track_running_stats:
        return False
    if type(x) not in (Tensor, nn.Parameter) or _has_global_module_hooks():
        return False
    return not any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or 'forward' in vars(module)
        for module in (norm, *norm, *convs)
    ) and all(
        type(conv) is nn.Conv2d and conv.bias is None and conv.padding_mode == 'zeros' and conv.padding != 'same'
        for conv in convs
    )


class _NormReLUConvs(Function):
    @staticmethod
    def forward(ctx, bn, convs, x, gamma, beta, *weights):
        # What F.batch_norm calls: it chooses between the native kernel, cuDNN and MIOpen.
        h, mean, rstd, reserve, ctx.kernel = aten._batch_norm_impl_index(
            x, gamma, beta, bn.running_mean, bn.running_var, bn.training, bn.momentum, bn.eps,
            torch.backends.cudnn.enabled,
        )  # fmt: skip
        # In evaluation mode the running statistics take the place of those of the batch.
        stats = (mean, rstd) if bn.training else (bn.running_mean, bn.running_var)
        ctx.save_for_backward(x, gamma, beta, *stats, reserve, *weights)
        ctx.training, ctx.eps, ctx.convs = bn.training, bn.eps, convs
        h = h.relu_()
        return tuple(conv(h) for conv in convs)

    @staticmethod
    def backward(ctx, *grads):
        x, gamma, beta, mean, spread, reserve, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
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
        into_x = aten._batch_norm_impl_index_backward(
            ctx.kernel, x, grad_h, gamma, *running, *batch, ctx.training, ctx.eps, (need_x, need_gamma, need_beta),
            reserve,
        )  # fmt: skip
        return None, None, *into_x, *grad_weights


def _plain_gradients(ctx, grads):
    """The gradients by autograd itself, with a graph of their own."""
    x, gamma, beta, mean, variance, _, *weights = ctx.saved_tensors
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
