"""A model for inference: fast layouts and types, compiled with its weights as constants."""

from copy import deepcopy

import torch
from torch import nn


def accelerate(model: nn.Module, *, dtype: torch.dtype | None = None, compile: bool = True) -> nn.Module:
    """The fast path: channels-last, perhaps in another type, and compiled with its weights as constants.

    It runs under ``torch.no_grad()`` or ``torch.inference_mode()``: only there does the compiler take weights for
    constants, fold each BatchNorm into the convolution before it, and lay weights out as its kernels like best.

    Args:
        model (nn.Module): The model. It is not changed.
        dtype (torch.dtype, optional): Type of weights and inputs: ``torch.bfloat16`` on a CPU that multiplies in it
            (:func:`has_fast_bfloat16`). Defaults to the model's own.
        compile (bool): Whether to compile, at the first forward, which takes a minute or more; it needs a C++
            compiler. This process then compiles all that runs without gradients with its weights as constants:
            weights that change later have no effect. Defaults to True.

    Returns:
        nn.Module: A copy in evaluation mode. Its attention maps have the names of the model.
    """
    model = deepcopy(model).to(memory_format=torch.channels_last)
    if dtype is not None:
        model = model.to(dtype)
    model.eval()  # MMPretrain's return None
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
