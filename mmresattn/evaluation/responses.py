"""Mean absolute responses along a network (paper, figure 4)."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .batches import first_images


def stage_responses(
    model: nn.Module, loader: Iterable[dict] | Iterable[Tensor], max_images: int | None = None
) -> dict[str, float]:
    """Mean absolute response of the output of every block and stage (paper, figure 4).

    Blocks are the modules named ``stageK.<block>``: the units and attention modules of
    :class:`~mmresattn.models.ResidualAttentionNet`. The response of a stage is that of its last block: the raw sum,
    before any normalisation that follows the stage.

    Args:
        model (nn.Module): Network with such blocks, or a classifier with it as its backbone; it is put into evaluation
            mode.
        loader (Iterable[dict] | Iterable[Tensor]): Batches of a test dataloader, which pass the classifier's
            ``data_preprocessor``; or tensors (N, C, H, W) as the network takes them.
        max_images (int, optional): Use the first so many images. Defaults to all.

    Returns:
        Dict[str, float]: For each block, as ``'stage1.attention1'``, and after its blocks each stage, as ``'stage1'``,
        the mean of ``|x|`` over images, channels and positions, summed in float64.

    Raises:
        ValueError: If the network has no such blocks, or if there are no images.
    """
    blocks = {
        name.removeprefix('backbone.'): module
        for name, module in model.named_modules()
        if re.search(r'(^|\.)stage\d+\.[^.]+$', name)
    }
    if not blocks:
        raise ValueError(
            f'{type(model).__name__} has no blocks named stageK.<block>, as those of ResidualAttentionNet are.'
        )
    sums, counts = dict.fromkeys(blocks, 0.0), dict.fromkeys(blocks, 0)

    def watch(name: str):
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            sums[name] += output.double().abs().sum().item()  # N, C, H, W
            counts[name] += output.numel()

        return hook

    model.eval()
    device = next(model.parameters()).device
    batches = (batch if isinstance(batch, dict) else {'inputs': batch} for batch in loader)
    handles = [module.register_forward_hook(watch(name)) for name, module in blocks.items()]
    try:
        with torch.no_grad():
            for batch in first_images(batches, max_images):
                if hasattr(model, 'data_preprocessor'):
                    batch = model.data_preprocessor({'inputs': batch['inputs']}, training=False)
                model(batch['inputs'].to(device))
    finally:
        for handle in handles:
            handle.remove()
    if not all(counts.values()):
        raise ValueError('There are no images, or some blocks did not run.')
    responses = {}
    for name in blocks:
        stage = name.rpartition('.')[0]
        responses.pop(stage, None)  # of an earlier block: a stage stands after its last
        responses[name] = responses[stage] = sums[name] / counts[name]
    return responses
