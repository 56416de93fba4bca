"""A model for inference: BatchNorm folded into the convolutions before it, fast layouts and types, compiled."""

from collections import defaultdict
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..utils import forward_images

CONVOLUTIONS = {
    torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d
}  # fmt: skip
NORMALISATIONS = {F.batch_norm, torch.batch_norm}


def fuse(model: nn.Module, inputs: Tensor | None = None, **kwargs) -> nn.Module:
    """A copy of a model in which every BatchNorm that one convolution alone feeds is folded into that convolution.

    Who feeds whom is seen in a forward pass of shapes without values, so that any model will do, whatever the order of
    its layers: MMCV's ``fuse_conv_bn`` takes for a pair what stands next to each other in a module, which no unit
    with :func:`~mmresattn.models.layers.norm_relu` does and a pre-activation network may do by accident. A
    BatchNorm stays where it follows a sum, as the first of each pre-activation unit does, or where the features
    before it are used elsewhere too. Of a detector of MMDetection, backbone and neck are fused and its heads stay as
    they are. Names of attention maps stay; they are recorded and edited as before.

    Args:
        model (nn.Module): In evaluation mode. It is not changed.
        inputs (Tensor, optional): An input; only its shape counts. Defaults to (1, C, 224, 224) with the channels of
            the first convolution.
        **kwargs: Of the forward, such as ``mode='tensor'``.

    Returns:
        nn.Module: The copy, in evaluation mode. Folded layers are ``nn.Identity``, so a checkpoint is loaded before.

    Raises:
        ValueError: If a module is in training mode, or the model has no convolution.
    """
    training = [name or 'the model' for name, module in model.named_modules() if module.training]
    if training:
        raise ValueError(f'fuse works on models for inference, but {training[0]} is in training mode: call .eval().')
    model = deepcopy(model)
    for conv, norm in _pairs(model, inputs, kwargs):
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
            transpose=conv.transposed,
        )  # fmt: skip
        for parent in model.modules():
            for name, child in parent.named_children():
                if child is norm:
                    setattr(parent, name, nn.Identity())
    return model.eval()


def accelerate(
    model: nn.Module,
    inputs: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
    compile: bool = True,
    **kwargs,
) -> nn.Module:
    """The fast path: fused, channels-last, perhaps in another type, and compiled with its weights as constants.

    It runs under ``torch.no_grad()`` or ``torch.inference_mode()``: only there does the compiler take weights for
    constants, and lay them out as its kernels like best.

    Args:
        model (nn.Module): In evaluation mode. It is not changed.
        inputs (Tensor, optional): As for :func:`fuse`.
        dtype (torch.dtype, optional): Type of weights and inputs: ``torch.bfloat16`` on a CPU that multiplies in it
            (:func:`has_fast_bfloat16`). Defaults to the model's own.
        compile (bool): Whether to compile, at the first forward, which takes a minute or more; it needs a C++
            compiler. This process then compiles all that runs without gradients with its weights as constants:
            weights that change later have no effect. Defaults to True.
        **kwargs: Of the forward, as for :func:`fuse`.

    Returns:
        nn.Module: A copy. Its attention maps have the names of the model.
    """
    model = fuse(model, inputs, **kwargs).to(memory_format=torch.channels_last)
    if dtype is not None:
        model = model.to(dtype)
    if compile:
        from torch._inductor import config as inductor

        # Not among the options of one compilation: Dynamo asks for it before the compiler sees those, and weights that
        # it has made inputs of the graph can no longer be constants.
        inductor.freezing = True
        model.compile(fullgraph=True)
    return model


def has_fast_bfloat16() -> bool:
    """Whether this machine multiplies in bfloat16: an accelerator, or a CPU with AVX-512 BF16 or AMX."""
    return (
        torch.accelerator.is_available() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


class _Consumers(TorchFunctionMode):
    """Who takes what a convolution gives, by parameter: layers are known by the tensors that they own."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[Tensor, Tensor]] = {}  # by id: the features, and the weight that made them
        self.users: dict[int, list[Tensor | None]] = defaultdict(list)  # the same: running means, or None for others
        self.norms: dict[int, list[int]] = defaultdict(list)  # by id of the running mean: features that it took

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            return out  # a question of shape or type
        mean = None
        if function in NORMALISATIONS:
            mean = args[1] if len(args) > 1 else kwargs['running_mean']
            self.norms[id(mean)].append(id(args[0]))
        for leaf in tree_leaves((args, kwargs)):
            if id(leaf) in self.made:
                self.users[id(leaf)].append(mean)
        if function in CONVOLUTIONS:
            self.made[id(out)] = out, args[1] if len(args) > 1 else kwargs['weight']
        return out


def _pairs(model: nn.Module, inputs: Tensor | None, kwargs: dict) -> list[tuple[_ConvNd, _BatchNorm]]:
    convs = [module for module in model.modules() if isinstance(module, _ConvNd) and not is_parametrized(module)]
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not convs:
        raise ValueError('The model has no convolution to fold a BatchNorm into.')
    if inputs is None:
        inputs = convs[0].weight.new_zeros(1, convs[0].in_channels, 224, 224)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.no_grad(), _Consumers() as seen:
        for leaf in tree_leaves(forward_images(model, fake.from_tensor(inputs), **kwargs)):
            seen.users[id(leaf)].append(None)  # the caller takes it
    by_mean, by_weight = {id(norm.running_mean): norm for norm in norms}, {id(conv.weight): conv for conv in convs}
    pairs = {}
    for key, (_, weight) in seen.made.items():
        users = seen.users[key]
        norm = by_mean.get(id(users[0])) if len(users) == 1 else None
        pairs.setdefault(id(weight), []).append(norm)
    found = []
    for key, partners in pairs.items():
        norm = partners[0]
        if key not in by_weight or norm is None or any(other is not norm for other in partners):
            continue
        sources = seen.norms[id(norm.running_mean)]  # a layer may run several times, always behind the same convolution
        if all(source in seen.made and id(seen.made[source][1]) == key for source in sources):
            found.append((by_weight[key], norm))
    return found
