"""The break: any model of MMDetection and MMSegmentation needs ``mmcv._ext``, MMCV's compiled operators, on import.

MMCV-lite has none, and MMCV 2.1 cannot be built on PyTorch >= 2.14. Torchvision has most of what the common models
call, so its operators stand in for ``mmcv._ext`` where that is missing. A real one always wins.

Import ``mmresattn.compat.operators_enabled`` before ``mmdet.models``, ``mmdet.apis``, ``mmdet.evaluation``,
``mmseg.models``, ``mmseg.apis`` or ``mmseg.utils``, which otherwise fail with ``ModuleNotFoundError: No module named
'mmcv._ext'``. The packages by themselves, their registries, ``mmdet.utils`` and MMPretrain may come first.

Operators have the names and arguments that ``mmcv/ops/*.py`` gives them, and write their results into the tensors that
it brings. They agree with MMCV's kernels, except where those have no good answer:

- float64, float16 and bfloat16 are taken everywhere, and the latter two computed in float32;
- in the maximum of RoIAlign a bin without area has one sample, not the lowest number there is;
- in RoIPool a region without area has no gradient, where MMCV's goes to the first pixel;
- a class weight that the focal losses lack is an error, not what lies beyond the end of the tensor.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from operator import itemgetter
from types import ModuleType

import torch
from mmcv.cnn.bricks import transformer
from torch import Tensor
from torch.nn import functional as F

VERSIONS = ('get_compiler_version', 'get_compiling_cuda_version')
OPERATORS = dict.fromkeys(VERSIONS, lambda: 'none: operators of torchvision')


def operator(function: Callable) -> Callable:
    """Register a function as the operator of its name."""
    OPERATORS[function.__name__] = function
    return function


def wide(*tensors: Tensor) -> list[Tensor]:
    """Tensors in the type of the first, but in float32 at least: less is too coarse for coordinates."""
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    return [tensor.to(dtype) for tensor in tensors]


# Suppression of overlapping boxes.


@operator
def nms(boxes, scores, iou_threshold, offset):
    boxes, scores = wide(boxes, scores)
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    # Rounded as the overlaps are: one that equals the threshold does not suppress.
    iou_threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    return torch.ops.torchvision.nms(boxes, scores, iou_threshold)


@operator
def softnms(boxes, scores, dets, iou_threshold, sigma, min_score, method, offset):
    boxes, scores = wide(boxes, scores.clone())
    low, high = boxes[:, :2], boxes[:, 2:] + offset
    areas = (high - low).prod(dim=1)
    left, kept = torch.arange(len(boxes)), []
    while len(left):
        best = left[scores[left].argmax()]
        dets[len(kept)] = torch.cat([boxes[best], scores[best, None]]).to(dets.dtype)
        kept.append(best)
        left = left[left != best]
        shared = (torch.minimum(high[best], high[left]) - torch.maximum(low[best], low[left])).clamp(min=0).prod(dim=1)
        overlap = shared / (areas[best] + areas[left] - shared)
        if method == 2:  # Gaussian
            scores[left] *= (-(overlap**2) / sigma).exp()
        else:  # 1, linear, or 0, naive
            scores[left] *= torch.where(overlap >= iou_threshold, (1 - overlap) * method, 1)
        left = left[scores[left] >= min_score]
    return torch.stack(kept) if kept else left


@operator
def nms_match(dets, iou_threshold):
    """Indices of each box that is kept, and behind it, best first, of the boxes that it suppresses."""
    from torchvision.ops import box_iou

    (dets,) = wide(dets)
    left, groups = dets[:, 4].argsort(descending=True, stable=True), []
    while len(left):
        overlaps = box_iou(dets[left[:1], :4], dets[left[1:], :4])[0]
        matched = overlaps >= iou_threshold
        groups.append([left[0].item(), *left[1:][matched].tolist()])
        left = left[1:][~matched]
    return groups


# Features of regions of interest. RoIs are rows of (image, left, top, right, bottom).


def finer_grids(rois, size, spatial_scale, sampling_ratio) -> Iterator[tuple[Tensor, int, int]]:
    """RoIs (as a mask) that have equally many samples in a bin, with the number of their rows and of their columns."""
    corners = rois[:, 1:] * spatial_scale
    sides = corners[:, [3, 2]] - corners[:, [1, 0]]
    if sampling_ratio > 0:
        counts = torch.full_like(sides, sampling_ratio)
    else:
        counts = (sides / sides.new_tensor(size)).ceil().clamp(min=1)
    for count in counts.unique(dim=0):
        yield ((counts == count).all(dim=1), *count.int().tolist())


@operator
def roi_align_forward(
    input, rois, output, argmax_y, argmax_x, aligned_height, aligned_width, spatial_scale, sampling_ratio, pool_mode,
    aligned,
):  # fmt: skip
    align = torch.ops.torchvision.roi_align
    values, rois = wide(input, rois)
    if pool_mode == 1:  # average
        output.copy_(align(values, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned))
        return
    size = aligned_height, aligned_width
    for chosen, rows, columns in finer_grids(rois, size, spatial_scale, sampling_ratio):
        # Each sample is a bin of a finer grid. MMCV gives the maxima's indices to the backward pass and nobody else.
        width = aligned_width * columns
        fine = align(values, rois[chosen], spatial_scale, aligned_height * rows, width, 1, aligned)
        maxima, indices = F.max_pool2d(fine, (rows, columns), return_indices=True)
        output[chosen] = maxima.to(output.dtype)
        argmax_y[chosen] = (indices // width % rows).to(output.dtype)
        argmax_x[chosen] = (indices % width % columns).to(output.dtype)


@operator
def roi_align_backward(
    grad_output, rois, argmax_y, argmax_x, grad_input, aligned_height, aligned_width, spatial_scale, sampling_ratio,
    pool_mode, aligned,
):  # fmt: skip
    align_backward = torch.ops.torchvision._roi_align_backward
    grad, rois = wide(grad_output, rois)
    size = aligned_height, aligned_width
    if pool_mode == 1:
        grad_input.copy_(align_backward(grad, rois, spatial_scale, *size, *grad_input.shape, sampling_ratio, aligned))
        return
    for chosen, rows, columns in finer_grids(rois, size, spatial_scale, sampling_ratio):
        width = aligned_width * columns
        y = argmax_y[chosen].long() + rows * torch.arange(aligned_height, device=grad.device)[:, None]
        x = argmax_x[chosen].long() + columns * torch.arange(aligned_width, device=grad.device)
        fine = F.max_unpool2d(grad[chosen], y * width + x, (rows, columns))
        grad_input += align_backward(
            fine, rois[chosen], spatial_scale, aligned_height * rows, width, *grad_input.shape, 1, aligned
        )


def bin_edges(start: Tensor, end: Tensor, count: int, size: int) -> list[list[tuple[int, int]]]:
    """First and past-the-last pixel of each bin of each RoI, in an image that is ``size`` long."""
    step = (end - start)[:, None] / count
    bins = torch.arange(count, device=start.device)
    first = (bins * step + start[:, None]).floor().clamp(0, size).long()
    last = ((bins + 1) * step + start[:, None]).ceil().clamp(0, size).long()
    return torch.stack([first, last], dim=2).tolist()


@operator
def roi_pool_forward(input, rois, output, argmax, pooled_height, pooled_width, spatial_scale):
    # Torchvision's rounds the corners of the RoI, MMCV's those of its bins.
    (rois,) = wide(rois)
    start, end = rois[:, 1:3] * spatial_scale, (rois[:, 3:] + 1) * spatial_scale
    columns = bin_edges(start[:, 0], end[:, 0], pooled_width, input.size(3))
    rows = bin_edges(start[:, 1], end[:, 1], pooled_height, input.size(2))
    images = rois[:, 0].long().tolist()
    argmax.fill_(-1)  # no gradient
    for roi in (end > start).all(dim=1).nonzero()[:, 0].tolist():
        for y, (top, bottom) in enumerate(rows[roi]):
            for x, (left, right) in enumerate(columns[roi]):
                pixels = input[images[roi], :, top:bottom, left:right].flatten(1)
                if pixels.numel():
                    output[roi, :, y, x], index = pixels.max(dim=1)
                    index = (top + index // (right - left)) * input.size(3) + left + index % (right - left)
                    argmax[roi, :, y, x] = index.to(argmax.dtype)


@operator
def roi_pool_backward(grad_output, rois, argmax, grad_input, pooled_height, pooled_width, spatial_scale):
    backward = torch.ops.torchvision._roi_pool_backward
    grad, rois = wide(grad_output, rois)
    grad_input.copy_(backward(grad, rois, argmax, spatial_scale, pooled_height, pooled_width, *grad_input.shape))


# Deformable convolution. Offsets and masks lie in memory as torchvision's do. Layouts in its order:
plain_layout = itemgetter('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group')
modulated_layout = itemgetter(
    'stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w', 'group', 'deformable_group'
)


def plain_backward(grad_output, input, weight, offset, layout) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and offset."""
    tensors = wide(grad_output, input, weight, offset, input.new_zeros(len(input), 1), input.new_zeros(len(weight)))
    return torch.ops.torchvision._deform_conv2d_backward(*tensors, *plain_layout(layout), False)[:3]


@operator
def deform_conv_forward(input, weight, offset, output, columns, ones, **layout):
    tensors = wide(input, weight, offset, input.new_zeros(len(input), 1), input.new_zeros(len(weight)))
    output.copy_(torch.ops.torchvision.deform_conv2d(*tensors, *plain_layout(layout), False))


@operator
def deform_conv_backward_input(input, offset, gradOutput, gradInput, gradOffset, weight, columns, **layout):
    grad_input, _, grad_offset = plain_backward(gradOutput, input, weight, offset, layout)
    gradInput.copy_(grad_input)
    gradOffset.copy_(grad_offset)


@operator
def deform_conv_backward_parameters(input, offset, gradOutput, gradWeight, columns, ones, scale, **layout):
    # The weight has no part in its own gradient but its shape.
    gradWeight += scale * plain_backward(gradOutput, input, gradWeight, offset, layout)[1].to(gradWeight.dtype)


def as_mmcv_reads(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Offsets or masks (N, C, H, W) of another size than the output, as DyHead gives them: (N, C, *size).

    MMCV's kernels take them for a tensor of that size: they read the first values of each image in memory.

    Raises:
        ValueError: If there are too few, where MMCV reads what lies behind the tensor.
    """
    if values.shape[2:] == size:
        return values
    count = values.size(1) * size[0] * size[1]
    if values[0].numel() < count:
        raise ValueError(
            f'The offsets and masks of this deformable convolution are for {tuple(values.shape[2:])} positions, and '
            f'its output has {tuple(size)}: they must not be fewer.'
        )
    return values.flatten(1)[:, :count].unflatten(1, (-1, *size))


@operator
def modulated_deform_conv_forward(input, weight, bias, ones, offset, mask, output, columns, with_bias, **layout):
    offset, mask = (as_mmcv_reads(values, output.shape[-2:]) for values in (offset, mask))
    tensors = wide(input, weight, offset, mask, bias if with_bias else input.new_zeros(len(weight)))
    output.copy_(torch.ops.torchvision.deform_conv2d(*tensors, *modulated_layout(layout), True))


@operator
def modulated_deform_conv_backward(
    input, weight, bias, ones, offset, mask, columns, grad_input, grad_weight, grad_bias, grad_offset, grad_mask,
    grad_output, with_bias, **layout,
):  # fmt: skip
    offset, mask = (as_mmcv_reads(values, grad_output.shape[-2:]) for values in (offset, mask))
    tensors = wide(grad_output, input, weight, offset, mask, bias if with_bias else input.new_zeros(len(weight)))
    grads = torch.ops.torchvision._deform_conv2d_backward(*tensors, *modulated_layout(layout), True)
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    for into, grad in zip((grad_offset, grad_mask), grads[2:4]):
        into.zero_().flatten(1)[:, : grad[0].numel()] = grad.flatten(1)  # what was not read has no gradient
    if with_bias:
        grad_bias.copy_(grads[4])


# Attention at a few points of many feature maps. On the CPU, MMCV computes it in Python itself.


def attend(spatial_shapes, value, sampling_locations, attention_weights) -> Tensor:
    """MMCV's own computation in Python."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch  # which imports the operators

    return multi_scale_deformable_attn_pytorch(value, spatial_shapes.tolist(), sampling_locations, attention_weights)


@operator
def ms_deform_attn_forward(
    value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights, im2col_step
):
    return attend(value_spatial_shapes, *wide(value, sampling_locations, attention_weights)).to(value.dtype)


@operator
def ms_deform_attn_backward(
    value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights, grad_output,
    grad_value, grad_sampling_loc, grad_attn_weight, im2col_step,
):  # fmt: skip
    *inputs, grad = wide(value, sampling_locations, attention_weights, grad_output)
    _, backward = torch.func.vjp(partial(attend, value_spatial_shapes), *inputs)
    for into, found in zip((grad_value, grad_sampling_loc, grad_attn_weight), backward(grad)):
        into.copy_(found)


# Convolution at some places of one image, in two steps: columns of a matrix, and its product back at their places.


@operator
def masked_im2col_forward(features, mask_h_idx, mask_w_idx, data_col, kernel_h, kernel_w, pad_h, pad_w):
    padded = F.pad(features[0], (pad_w, pad_w, pad_h, pad_h))
    rows = mask_h_idx + torch.arange(kernel_h, device=features.device)[:, None, None]  # kernel_h, 1, places
    columns = mask_w_idx + torch.arange(kernel_w, device=features.device)[:, None]  # kernel_w, places
    data_col.copy_(padded[:, rows, columns].flatten(0, 2))


@operator
def masked_col2im_forward(masked_output, mask_h_idx, mask_w_idx, output, height, width, channels):
    output[0, :, mask_h_idx, mask_w_idx] = masked_output


# Upsampling by a kernel for each pixel (CARAFE).


def reassemble(features: Tensor, masks: Tensor, kernel_size: int, group_size: int) -> Tensor:
    """Each pixel is the sum, by its own weights, over a window around the pixel of which it is a part."""
    height, width = features.shape[2:]
    windows = F.unfold(features, kernel_size, padding=kernel_size // 2)  # N, channels * window, h * w
    windows = windows.unflatten(1, (group_size, -1, kernel_size**2)).unflatten(4, (height, width))
    masks = masks.unflatten(1, (group_size, -1)).unflatten(4, (width, -1)).unflatten(3, (height, -1))
    pixels = torch.einsum('ngckhw,ngkhywx->ngchywx', windows, masks)
    return pixels.flatten(5).flatten(3, 4).flatten(1, 2)


@operator
def carafe_forward(features, masks, rfeatures, routput, rmasks, output, kernel_size, group_size, scale_factor):
    rfeatures.copy_(features)  # all that the backward pass is given of them
    output.copy_(reassemble(*wide(features, masks), kernel_size, group_size))


@operator
def carafe_backward(
    grad_output, rfeatures, masks, rgrad_output, rgrad_input_hs, rgrad_input, rgrad_masks, grad_input, grad_masks,
    kernel_size, group_size, scale_factor,
):  # fmt: skip
    features, masks, grad = wide(rfeatures, masks, grad_output)
    _, backward = torch.func.vjp(partial(reassemble, kernel_size=kernel_size, group_size=group_size), features, masks)
    for into, found in zip((grad_input, grad_masks), backward(grad)):
        into.copy_(found)


# Attention of each position to those around it (PSANet).


def spread(masks: Tensor, psa_type, h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, **unused) -> Tensor:
    """From a window around each position (N, h_mask * w_mask, H, W) to all pairs of positions (N, H * W, H, W)."""
    y, x = torch.arange(h_feature, device=masks.device), torch.arange(w_feature, device=masks.device)
    row, column = y[:, None] - y + half_h_mask, x[:, None] - x + half_w_mask  # of one position seen from another
    row, column = row[:, None, :, None], column[None, :, None, :]
    inside = (row >= 0) & (row < h_mask) & (column >= 0) & (column < w_mask)  # H', W', H, W
    windows = masks.unflatten(1, (h_mask, w_mask))
    pairs = windows[:, row.clamp(0, h_mask - 1), column.clamp(0, w_mask - 1), y[:, None], x] * inside
    return (pairs if psa_type == 0 else pairs.permute(0, 3, 4, 1, 2)).flatten(1, 2)  # 0: collect, 1: distribute


@operator
def psamask_forward(input, output, **layout):
    output.copy_(spread(input, **layout))


@operator
def psamask_backward(grad_output, grad_input, **layout):
    _, backward = torch.func.vjp(partial(spread, **layout), grad_input)  # linear: its values do not matter
    grad_input.copy_(backward(grad_output)[0])


# Focal losses.


def check_targets(target: Tensor, lowest: float, highest: int) -> None:
    """Raise where a target has no class or no weight."""
    if target.numel() and not lowest <= target.min() <= target.max() <= highest:
        raise ValueError(
            f'The targets of this focal loss must be between {lowest} and {highest}, '
            f'but are between {target.min()} and {target.max()}.'
        )


def signed(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of being right, N x classes, the sign that made them so, and the factor of the loss of each."""
    # Any target that is no class is background, which has no weight.
    check_targets(target, *((0, input.size(1) - 1) if weight.numel() else (-torch.inf, input.size(1))))
    positive = target[:, None] == torch.arange(input.size(1), device=input.device)
    factor = torch.full_like(input, 1 - alpha).masked_fill(positive, alpha)
    if weight.numel():
        factor = factor * weight[target, None]
    sign = torch.where(positive, 1, -1)
    return sign * input, sign, factor


@operator
def sigmoid_focal_loss_forward(input, target, weight, output, gamma, alpha):
    right, _, factor = signed(*wide(input), target, weight, alpha)
    output.copy_(-factor * (-right).sigmoid() ** gamma * F.logsigmoid(right))


@operator
def sigmoid_focal_loss_backward(input, target, weight, grad_input, gamma, alpha):
    right, sign, factor = signed(*wide(input), target, weight, alpha)
    wrong = (-right).sigmoid()
    grad_input.copy_(sign * factor * wrong**gamma * (gamma * right.sigmoid() * F.logsigmoid(right) - wrong))


def probability(softmax: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Probability of each target and of all else, N, and the factor of its loss. Negative targets are ignored."""
    check_targets(target, -torch.inf, softmax.size(1) - 1)
    known = target.clamp(min=0)
    right = softmax.gather(1, known[:, None])[:, 0]
    factor = alpha * (target >= 0).to(right.dtype)
    if weight.numel():
        factor = factor * weight[known]
    tiny = torch.finfo(torch.float32).tiny
    return right.clamp(min=tiny), (1 - right).clamp(min=tiny), factor


@operator
def softmax_focal_loss_forward(input, target, weight, output, gamma, alpha):  # `input` is the softmax
    right, wrong, factor = probability(*wide(input), target, weight, alpha)
    output.copy_(-factor * wrong**gamma * right.log())


@operator
def softmax_focal_loss_backward(input, target, weight, buff, grad_input, gamma, alpha):
    (softmax,) = wide(input)
    right, wrong, factor = probability(softmax, target, weight, alpha)
    slope = factor * (gamma * wrong ** (gamma - 1) * right * right.log() - wrong**gamma)
    is_target = target[:, None] == torch.arange(softmax.size(1), device=softmax.device)
    grad_input.copy_(slope[:, None] * (is_target.to(softmax.dtype) - softmax))


# How they come into their place.


def missing_operator(name: str) -> Callable:
    """What stands for an operator that nothing stands in for: MMCV looks up all on import, so only calls fail."""
    if name.startswith('__'):  # asked for by Python itself
        raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")

    def missing(*args, **kwargs):
        raise NotImplementedError(
            f"MMCV's compiled operator {name!r} is needed here. MMCV-lite has no compiled operators, and mmresattn has "
            'no stand-in for this one. Install MMCV itself, which can be built on PyTorch <= 2.13: '
            "pip uninstall mmcv-lite && pip install 'setuptools<81' wheel && "
            'pip install --no-build-isolation mmcv==2.1.0'
        )

    return missing


class OperatorFinder(MetaPathFinder, Loader):
    """Finds ``mmcv._ext`` where nothing else did."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, origin=__file__) if fullname == 'mmcv._ext' else None

    def exec_module(self, module: ModuleType) -> None:
        importlib.import_module('torchvision')  # loads its operators
        vars(module).update(OPERATORS, __getattr__=missing_operator)


def moved_attention(name: str) -> type:
    """What MMCV moved out of ``mmcv.cnn.bricks.transformer``, which looks for it once: before there are operators."""
    if name != 'MultiScaleDeformableAttention':
        raise AttributeError(f'module {transformer.__name__!r} has no attribute {name!r}')
    return importlib.import_module('mmcv.ops').MultiScaleDeformableAttention


def allow_missing_operators() -> None:
    """Let ``mmcv.ops`` be imported where ``mmcv._ext`` is missing. Nothing is loaded until it is asked for."""
    sys.meta_path.append(OperatorFinder())  # last, so that a real one wins
    transformer.__getattr__ = moved_attention
