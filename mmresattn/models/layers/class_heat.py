"""Boxes as a map: what a branch or a word is taught."""

from collections.abc import Sequence

import torch
from torch import Tensor


def class_heat(boxes: Tensor, labels: Tensor, num_classes: int, shape: Sequence[int], size: Sequence[int]) -> Tensor:
    """Where the objects of each class are: the share of each position's area that one of its boxes covers.

    Args:
        boxes (Tensor): (B, 4), x1, y1, x2, y2 in pixels.
        labels (Tensor): Classes (B,) from 0 on.
        num_classes (int): Number of classes, K.
        shape (Sequence[int]): Height and width of the image in pixels.
        size (Sequence[int]): Rows h and columns w that divide it.

    Returns:
        Tensor: (K, h, w) in [0, 1]; where boxes of a class overlap, that of the larger share.
    """

    def covered(low: Tensor, high: Tensor, length: int, parts: int) -> Tensor:
        edges = torch.linspace(0, length, parts + 1, device=boxes.device, dtype=boxes.dtype)
        overlap = torch.minimum(high[:, None], edges[1:]) - torch.maximum(low[:, None], edges[:-1])
        return overlap.clamp_min(0) * (parts / length)  # B, parts

    x1, y1, x2, y2 = boxes.unbind(1)
    shares = covered(y1, y2, shape[0], size[0])[:, :, None] * covered(x1, x2, shape[1], size[1])[:, None]  # B, h, w
    index = labels[:, None, None].expand_as(shares)
    return boxes.new_zeros(num_classes, *size).scatter_reduce(0, index, shares, 'amax')
