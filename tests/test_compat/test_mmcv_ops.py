"""Each operator through MMCV's own functions, against its definition in loops over Python's numbers."""

import ast
import importlib
import importlib.util
import inspect
import math
import sys
from functools import partial
from pathlib import Path

import mmcv.cnn.bricks.transformer as transformer
import pytest
import torch
from mmengine.config import ConfigDict
from torch.autograd import gradcheck

from mmresattn.compat.mmcv_ops import OPERATORS, OperatorFinder

ops = importlib.import_module('mmcv.ops')  # not before the package
pytestmark = pytest.mark.skipif(
    not isinstance(sys.modules['mmcv._ext'].__loader__, OperatorFinder), reason='MMCV has its own compiled operators'
)


@pytest.fixture
def random():
    """A source of random float64 tensors."""
    generator = torch.Generator().manual_seed(0)
    return partial(torch.rand, generator=generator, dtype=torch.float64)


# The finder.


def test_a_real_extension_wins(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, 'mmcv._ext')
    assert isinstance(importlib.util.find_spec('mmcv._ext').loader, OperatorFinder)
    (tmp_path / '_ext.py').touch()
    monkeypatch.setattr(sys.modules['mmcv'], '__path__', [*sys.modules['mmcv'].__path__, str(tmp_path)])
    assert importlib.util.find_spec('mmcv._ext').origin == str(tmp_path / '_ext.py')


def test_other_modules_are_not_found():
    assert importlib.util.find_spec('mmcv._other') is None


def test_operators_take_the_arguments_that_mmcv_gives():
    called = set()
    for file in Path(ops.__file__).parent.glob('*.py'):
        for call in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            name = ast.unparse(call.func).partition('ext_module.')[2] if isinstance(call, ast.Call) else ''
            if name in OPERATORS:
                called.add(name)
                if not any(isinstance(argument, ast.Starred) for argument in call.args):  # for another framework
                    keywords = {keyword.arg: None for keyword in call.keywords}
                    inspect.signature(OPERATORS[name]).bind(*call.args, **keywords)
    assert called == set(OPERATORS)


def test_a_missing_operator_is_named_with_its_cure():
    cure = r"'border_align_forward' .*PyTorch <= 2.13.*pip install .* mmcv==2.1.0"
    with pytest.raises(NotImplementedError, match=cure):
        ops.border_align(torch.rand(1, 4, 2, 2), torch.rand(1, 4, 4), 3)


def test_attention_is_where_mmcv_had_it():
    assert transformer.MultiScaleDeformableAttention is ops.MultiScaleDeformableAttention
    assert not hasattr(transformer, 'DeformableAttention')


# Suppression of overlapping boxes.


def overlap(a, b, offset):
    """Intersection over union."""
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + offset for i in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return shared / (sum(areas) - shared)


def suppress(boxes, scores, offset, decay, min_score):
    """Indices and scores, best first. ``decay`` gives the factor of a score from the overlap with a better box."""
    left, kept = dict(enumerate(scores.tolist())), []
    boxes = boxes.tolist()
    while left:
        best = max(left, key=left.get)
        kept.append((best, left.pop(best)))
        left = {i: score * decay(overlap(boxes[best], boxes[i], offset)) for i, score in left.items()}
        left = {i: score for i, score in left.items() if score >= min_score}
    return [list(x) for x in zip(*kept)]


@pytest.fixture
def boxes(random):
    corners = random(40, 2) * 12
    return torch.cat([corners, corners + 1 + random(40, 2) * 15], dim=1), random(40)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.3, 0.6])
def test_nms(boxes, offset, threshold):
    expected, _ = suppress(*boxes, offset, lambda overlap: overlap <= threshold, min_score=1e-9)
    assert 5 < len(expected) < 40
    for dtype in (torch.float64, torch.float32):
        dets, kept = ops.nms(boxes[0].to(dtype), boxes[1].to(dtype), threshold, offset=offset)
        assert kept.tolist() == expected
        torch.testing.assert_close(dets.double(), torch.cat([boxes[0], boxes[1][:, None]], dim=1)[expected])


def test_nms_keeps_an_overlap_of_exactly_the_threshold():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 3.0]])
    assert ops.nms(boxes, torch.tensor([1, 0.5]), 0.3)[1].tolist() == [0, 1]
    assert ops.nms(boxes, torch.tensor([1, 0.5]), 0.299)[1].tolist() == [0]


def test_nms_of_half_precision_of_mixed_types_and_of_nothing(boxes):
    expected = ops.nms(boxes[0].bfloat16().float(), boxes[1].float(), 0.5)[1]
    assert torch.equal(ops.nms(boxes[0].bfloat16(), boxes[1].float(), 0.5)[1], expected)
    assert ops.nms(boxes[0].half(), boxes[1].half(), 0.5)[1].numel()
    assert ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)[1].shape == (0,)


@pytest.mark.parametrize('split_thr', [10000, 10])
def test_batched_nms_is_one_for_each_class(boxes, split_thr):
    classes = torch.arange(40) % 3
    expected = []
    for index in range(3):
        members = (classes == index).nonzero()[:, 0]
        kept, _ = suppress(*(x[members] for x in boxes), 0, lambda overlap: overlap <= 0.4, min_score=1e-9)
        expected += members[kept].tolist()
    dets, kept = ops.batched_nms(*boxes, classes, dict(type='nms', iou_threshold=0.4, split_thr=split_thr))
    assert kept.tolist() == sorted(expected, key=lambda i: -boxes[1][i])
    assert torch.equal(dets, torch.cat([boxes[0], boxes[1][:, None]], dim=1)[kept])


DECAYS = {
    'naive': lambda overlap: overlap < 0.3,
    'linear': lambda overlap: 1 - overlap if overlap >= 0.3 else 1,
    'gaussian': lambda overlap: math.exp(-(overlap**2) / 0.4),
}


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', DECAYS)
def test_soft_nms(boxes, method, offset):
    expected, scores = suppress(*boxes, offset, DECAYS[method], min_score=0.05)
    dets, kept = ops.soft_nms(*boxes, 0.3, sigma=0.4, min_score=0.05, method=method, offset=offset)
    assert kept.tolist() == expected
    assert dets[:, 4].tolist() == pytest.approx(scores, rel=1e-9)
    assert torch.equal(dets[:, :4], boxes[0][kept])
    assert 5 < len(kept) < 40


def test_soft_nms_as_mmdet_asks_for_it(boxes):
    config = dict(type='soft_nms', iou_threshold=0.3, min_score=0.05)
    dets, kept = ops.batched_nms(boxes[0].float(), boxes[1].float(), torch.zeros(40), config, class_agnostic=True)
    assert kept.tolist() == suppress(*boxes, 0, DECAYS['linear'], min_score=0.05)[0]
    assert ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))[1].shape == (0,)
    big = torch.tensor([[0, 0, 1000, 1000], [0, 0, 1000, 100]]).half()  # areas are too large for it
    dets, _ = ops.soft_nms(big, torch.tensor([1, 0.5]).half(), 0.05)
    assert dets[:, 4].tolist() == pytest.approx([1, 0.45], abs=1e-3)


def test_nms_match(boxes):
    """A group for each box that is kept: those that it suppresses, an overlap of exactly the threshold included."""
    corners, scores = boxes[0].tolist(), boxes[1].tolist()
    left, expected = sorted(range(40), key=lambda i: -scores[i]), []
    while left:
        best = left.pop(0)
        group = [i for i in left if overlap(corners[best], corners[i], 0) >= 0.3]
        expected.append([best, *group])
        left = [i for i in left if i not in group]
    dets = torch.cat([boxes[0], boxes[1][:, None]], dim=1)
    assert [group.tolist() for group in ops.nms_match(dets, 0.3)] == expected
    assert any(len(group) > 2 for group in expected) and any(len(group) == 1 for group in expected)
    pair = torch.tensor([[0, 0, 10, 10, 0.5], [0, 0, 10, 5, 1]])
    assert [group.tolist() for group in ops.nms_match(pair, 0.5)] == [[1, 0]]


# Features of regions of interest.


def bilinear(image, y, x):
    """The value between the pixels of an image (rows of numbers), which is zero around."""
    top, left = math.floor(y), math.floor(x)
    value = 0
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < len(image) and 0 <= column < len(image[0]):
            value += image[row][column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return value


def clamped(image, y, x):
    """The same with a border that continues the edge, and zero from one pixel on outside."""
    height, width = len(image), len(image[0])
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0
    return bilinear(image, min(max(y, 0), height - 1), min(max(x, 0), width - 1))


def aligned_bins(image, roi, size, scale, ratio, aligned):
    """The samples of each bin."""
    left, top, right, bottom = (corner * scale - 0.5 * aligned for corner in roi)
    sides = [bottom - top, right - left] if aligned else [max(bottom - top, 1), max(right - left, 1)]
    rows, columns = (ratio or math.ceil(side / bins) for side, bins in zip(sides, size))
    for i in range(size[0]):
        for j in range(size[1]):
            yield [
                clamped(
                    image,
                    top + (i + (y + 0.5) / rows) * sides[0] / size[0],
                    left + (j + (x + 0.5) / columns) * sides[1] / size[1],
                )
                for y in range(rows)
                for x in range(columns)
            ]


# An inner one, one that reaches over all borders, one smaller than a pixel.
ROIS = torch.tensor([[0, 3.3, 2.2, 19.1, 17.7], [1, -4, -3, 33, 26], [1, 5, 5, 6.1, 5.9]], dtype=torch.float64)


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align(random, mode, aligned, ratio):
    images, size = random(2, 2, 9, 11), (3, 2)
    align = partial(ops.RoIAlign(size, 0.4, ratio, mode, aligned), rois=ROIS)
    reduce = dict(max=max, avg=lambda samples: sum(samples) / len(samples))[mode]
    expected = [
        [reduce(samples) for samples in aligned_bins(plane, roi.tolist()[1:], size, 0.4, ratio, aligned)]
        for roi in ROIS
        for plane in images[int(roi[0])].tolist()
    ]
    torch.testing.assert_close(align(images), torch.tensor(expected, dtype=torch.float64).view(3, 2, *size))
    assert gradcheck(align, images.requires_grad_(), fast_mode=True)
    assert align(images, rois=ROIS[:0]).shape == (0, 2, *size)
    half = align(images.half(), rois=ROIS.half())
    torch.testing.assert_close(half.double(), align(images), rtol=0.05, atol=0.05)


def pooled_bins(image, roi, size, scale):
    """The pixels of each bin."""
    height, width = len(image), len(image[0])
    left, top, right, bottom = roi[0] * scale, roi[1] * scale, (roi[2] + 1) * scale, (roi[3] + 1) * scale
    for i in range(size[0]):
        for j in range(size[1]):
            step_y, step_x = (bottom - top) / size[0], (right - left) / size[1]
            rows = range(max(math.floor(top + i * step_y), 0), min(math.ceil(top + (i + 1) * step_y), height))
            columns = range(max(math.floor(left + j * step_x), 0), min(math.ceil(left + (j + 1) * step_x), width))
            yield [image[y][x] for y in rows for x in columns]


def test_roi_pool(random):
    images, size = random(2, 2, 9, 11), (3, 2)
    rois = torch.cat([ROIS, ROIS.new_tensor([[0, 3, 3, 2, 2]])])  # and one without area, within a pixel
    expected = [
        [max(pixels, default=0) for pixels in pooled_bins(plane, roi.tolist()[1:], size, 0.4)]
        for roi in rois
        for plane in images[int(roi[0])].tolist()
    ]
    expected[-2:] = [[0] * 6] * 2
    pooled = ops.roi_pool(images, rois, size, 0.4)
    torch.testing.assert_close(pooled, torch.tensor(expected, dtype=torch.float64).view(4, 2, *size))
    assert gradcheck(lambda images: ops.roi_pool(images, rois, size, 0.4), images.requires_grad_(), fast_mode=True)


# Deformable convolution.


def deformed(image, offset, mask, weight, stride, padding, dilation, groups, deform_groups):
    """One output channel after the other, in a list of numbers."""
    out_channels, per_group, kernel_h, kernel_w = weight.shape
    taps = kernel_h * kernel_w
    planes = image.tolist()
    for out in range(out_channels):
        for y in range(offset.size(1)):
            for x in range(offset.size(2)):
                value = 0
                for i in range(per_group):
                    channel = out // (out_channels // groups) * per_group + i
                    shift = channel // (len(planes) // deform_groups) * taps
                    for tap in range(taps):
                        row, column = divmod(tap, kernel_w)
                        dy, dx = offset[2 * (shift + tap), y, x], offset[2 * (shift + tap) + 1, y, x]
                        at = bilinear(
                            planes[channel],
                            y * stride - padding[0] + row * dilation[0] + dy.item(),
                            x * stride - padding[1] + column * dilation[1] + dx.item(),
                        )
                        value += weight[out, i, row, column].item() * at * mask[shift + tap, y, x].item()
                yield value


@pytest.fixture(params=[(1, 1, 1), (2, 2, 1), (1, 2, 2)], ids='groups {0[0]}, {0[1]}, stride {0[2]}'.format)
def convolution(request, random):
    """Input, offset, mask, weight, bias, and the settings."""
    groups, deform_groups, stride = request.param
    size = (5 + 2 - 3) // stride + 1, (4 + 4 - 5) // stride + 1
    offset = random(2, deform_groups * 2 * 9, *size) * 4 - 2
    mask = random(2, deform_groups * 9, *size)
    weight = random(4, 4 // groups, 3, 3) - 0.5
    return (random(2, 4, 5, 4), offset, mask, weight, random(4)), (stride, (1, 2), (1, 2), groups, deform_groups)


def test_deformable_convolution(convolution):
    (images, offset, mask, weight, _), settings = convolution
    expected = [value for i in range(2) for value in deformed(images[i], offset[i], mask[i] * 0 + 1, weight, *settings)]
    output = ops.deform_conv2d(images, offset, weight, *settings)
    torch.testing.assert_close(output.flatten(), torch.tensor(expected, dtype=torch.float64))
    # In steps of one image, and in half precision as under autocast.
    torch.testing.assert_close(ops.deform_conv2d(images, offset, weight, *settings, False, 1), output)
    half = ops.deform_conv2d(images, offset.half(), weight, *settings)
    assert half.dtype == torch.half
    torch.testing.assert_close(half.double(), output, rtol=0.02, atol=0.02)
    inputs = [x.requires_grad_() for x in (images, offset, weight)]
    assert gradcheck(lambda *inputs: ops.deform_conv2d(*inputs, *settings), inputs, fast_mode=True)


@pytest.mark.parametrize('with_bias', [True, False])
def test_modulated_deformable_convolution(convolution, with_bias):
    (images, offset, mask, weight, bias), settings = convolution
    expected = [value for i in range(2) for value in deformed(images[i], offset[i], mask[i], weight, *settings)]
    expected = torch.tensor(expected, dtype=torch.float64).view(2, 4, *offset.shape[2:])
    inputs = images, offset, mask, weight
    if with_bias:
        expected, inputs = expected + bias[:, None, None], (*inputs, bias)
    function = lambda *inputs: ops.modulated_deform_conv2d(*(*inputs, None)[:5], *settings)  # noqa: E731
    torch.testing.assert_close(function(*inputs), expected)
    assert gradcheck(function, [x.requires_grad_() for x in inputs], fast_mode=True)


def test_offsets_of_another_size_as_dyhead_gives_them(random):
    """The kernel addresses them as if they had the size of the output: value number ((2 k + i) h + y) w + x."""
    images, weight = random(2, 4, 4, 4), random(4, 4, 3, 3) - 0.5
    offset, mask = random(2, 18, 7, 5) * 2 - 1, random(2, 9, 7, 5)
    expected = []
    for i in range(2):
        of_offset, of_mask = offset[i].flatten().tolist(), mask[i].flatten().tolist()
        read = torch.zeros(18, 4, 4, dtype=torch.float64), torch.zeros(9, 4, 4, dtype=torch.float64)
        for values, into in zip((of_offset, of_mask), read):
            for c, y, x in torch.cartesian_prod(*map(torch.arange, into.shape)).tolist():
                into[c, y, x] = values[(c * 4 + y) * 4 + x]
        expected += deformed(images[i], *read, weight, 1, (1, 1), (1, 1), 1, 1)
    inputs = [x.requires_grad_() for x in (images, offset, mask, weight)]
    function = lambda *inputs: ops.modulated_deform_conv2d(*inputs, None, 1, 1, 1, 1, 1)  # noqa: E731
    torch.testing.assert_close(function(*inputs).flatten(), torch.tensor(expected, dtype=torch.float64))
    assert gradcheck(function, inputs, fast_mode=True)
    with pytest.raises(ValueError, match=r'for \(3, 3\) positions, and its output has \(4, 4\)'):
        function(images, offset[..., :3, :3], mask[..., :3, :3], weight)


def test_deformable_layers_start_as_plain_convolutions(random):
    images = random(2, 4, 6, 6).float()
    for layer, scale in ((ops.DeformConv2dPack(4, 3, 3, padding=1), 1), (ops.ModulatedDeformConv2dPack(4, 3, 3), 0.5)):
        plain = torch.nn.functional.conv2d(images, layer.weight * scale, padding=layer.padding)
        torch.testing.assert_close(layer(images), plain, rtol=1e-4, atol=1e-5)  # the masks start at a half
        with torch.autocast('cpu'):
            layer(images).float().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_multi_scale_deformable_attention(random):
    """The function that MMCV calls on GPUs; on CPUs it computes the attention without operators."""
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    shapes = torch.tensor([[3, 4], [2, 2]])
    value, locations, weights = random(1, 16, 2, 3), random(1, 5, 2, 2, 2, 2) * 1.4 - 0.2, random(1, 5, 2, 2, 2)

    def attend(value, locations, weights):
        start = torch.tensor([0, 12])
        return MultiScaleDeformableAttnFunction.apply(value, shapes, start, locations, weights, 64)

    expected = torch.zeros(1, 5, 2, 3, dtype=torch.float64)
    for query, head, channel, level, point in torch.cartesian_prod(*map(torch.arange, (5, 2, 3, 2, 2))).tolist():
        height, width = shapes[level].tolist()
        plane = value[0, [0, 12][level] :, head, channel][: height * width].view(height, width).tolist()
        x, y = locations[0, query, head, level, point].tolist()
        at = bilinear(plane, y * height - 0.5, x * width - 0.5)
        expected[0, query, head, channel] += weights[0, query, head, level, point] * at
    torch.testing.assert_close(attend(value, locations, weights), expected.flatten(2))
    inputs = [x.requires_grad_() for x in (value, locations, weights)]
    assert gradcheck(attend, inputs, fast_mode=True)
    with torch.autocast('cpu'):
        half = attend(value.half(), locations, weights)
    assert half.dtype == torch.half
    torch.testing.assert_close(half.double(), attend(*inputs), rtol=0.02, atol=0.02)
    exact = torch.autograd.grad(attend(*inputs).sum(), inputs)
    for grad, expected in zip(torch.autograd.grad(half.sum(), inputs), exact):
        torch.testing.assert_close(grad, expected, rtol=0.05, atol=0.05)


# Convolution at some places, upsampling, attention around positions.


def test_masked_convolution(random):
    images, mask = random(1, 4, 5, 6), random(1, 5, 6) > 0.6
    layer = ops.MaskedConv2d(4, 3, 3, padding=1).double()
    with torch.no_grad():
        expected = torch.nn.functional.conv2d(images, layer.weight, layer.bias, padding=1) * mask[:, None]
        torch.testing.assert_close(layer(images, mask), expected)
        assert not layer(images, mask & False).any()


@pytest.mark.parametrize('groups', [1, 2])
def test_carafe(random, groups):
    features, masks = random(2, 4, 3, 4) - 0.5, random(2, groups * 25, 6, 8)
    expected = torch.zeros(2, 4, 6, 8, dtype=torch.float64)
    for n, c, y, x, i, j in torch.cartesian_prod(*map(torch.arange, (2, 4, 6, 8, 5, 5))).tolist():
        row, column = y // 2 + i - 2, x // 2 + j - 2
        if 0 <= row < 3 and 0 <= column < 4:
            weight = masks[n, (c // (4 // groups)) * 25 + i * 5 + j, y, x]
            expected[n, c, y, x] += features[n, c, row, column] * weight
    upsample = lambda features, masks: ops.carafe(features, masks, 5, groups, 2)  # noqa: E731
    torch.testing.assert_close(upsample(features, masks), expected)
    assert gradcheck(upsample, [features.requires_grad_(), masks.requires_grad_()], fast_mode=True)


@pytest.mark.parametrize('kind', ['collect', 'distribute'])
def test_psa_mask(random, kind):
    """Position (h, w) says in channel (i, j) how it is tied to the position i - 1 rows and j - 2 columns from it."""
    masks = random(2, 3 * 5, 3, 4)
    expected = torch.zeros(2, 12, 3, 4, dtype=torch.float64)
    for h, w, i, j in torch.cartesian_prod(*map(torch.arange, (3, 4, 3, 5))).tolist():
        y, x = h + i - 1, w + j - 2
        if 0 <= y < 3 and 0 <= x < 4:
            at = (y * 4 + x, h, w) if kind == 'collect' else (h * 4 + w, y, x)
            expected[(slice(None), *at)] = masks[:, i * 5 + j, h, w]
    layer = ops.PSAMask(kind, (3, 5))
    torch.testing.assert_close(layer(masks), expected)
    assert gradcheck(layer, masks.requires_grad_(), fast_mode=True)


# Focal losses.


def check_loss(loss, logits, expected):
    """``loss`` takes logits and a reduction."""
    logits.requires_grad_()
    for reduction, value in (('sum', expected.sum()), ('mean', expected.sum() / len(logits)), ('none', expected)):
        torch.testing.assert_close(loss(logits, reduction), value)
        if reduction != 'none' or expected.dim() == 2:  # MMCV itself fails there for the loss of a softmax
            assert gradcheck(lambda x: loss(x, reduction), logits)  # noqa: B023
    torch.testing.assert_close(loss(logits.half(), 'sum').double(), expected.sum(), rtol=0.01, atol=0)


@pytest.mark.parametrize('weighted', [True, False])
def test_sigmoid_focal_loss(random, weighted):
    logits, weight = random(6, 3) * 8 - 4, random(3) if weighted else None
    target = torch.tensor([0, 1, 2, 2, 0, 1] if weighted else [0, 3, 1, 2, -1, 3])  # 3 and -1 are no class
    expected = torch.zeros(6, 3, dtype=torch.float64)
    for n in range(6):
        for c in range(3):
            p = 1 / (1 + math.exp(-logits[n, c]))
            right, alpha = (p, 0.3) if target[n] == c else (1 - p, 0.7)
            expected[n, c] = -alpha * (1 - right) ** 1.5 * math.log(right) * (weight[target[n]] if weighted else 1)
    check_loss(lambda x, reduction: ops.sigmoid_focal_loss(x, target, 1.5, 0.3, weight, reduction), logits, expected)


@pytest.mark.parametrize('weighted', [True, False])
def test_softmax_focal_loss(random, weighted):
    logits, weight = random(6, 3) * 8 - 4, random(3) if weighted else None
    target = torch.tensor([0, 1, 2, -1, 0, 1])  # -1 is ignored
    expected = torch.zeros(6, dtype=torch.float64)
    for n in (0, 1, 2, 4, 5):
        exponentials = [math.exp(x) for x in logits[n]]
        p = exponentials[target[n]] / sum(exponentials)
        expected[n] = -0.3 * (1 - p) ** 1.5 * math.log(p) * (weight[target[n]] if weighted else 1)
    check_loss(lambda x, reduction: ops.softmax_focal_loss(x, target, 1.5, 0.3, weight, reduction), logits, expected)


def test_sure_answers_have_finite_losses_and_gradients():
    logits = torch.tensor([[200.0, -200], [-200, 200]], requires_grad=True)
    for loss in (ops.sigmoid_focal_loss, ops.softmax_focal_loss):
        for gamma in (0.0, 0.5):
            loss(logits, torch.tensor([0, 0]), gamma, 0.25, None, 'sum').backward()
    assert logits.grad.isfinite().all()


def test_targets_without_class_or_weight_are_refused():
    logits, weight = torch.zeros(2, 3), torch.ones(3)
    for loss, target, given in (
        (ops.sigmoid_focal_loss, [0, 4], None),
        (ops.sigmoid_focal_loss, [0, 3], weight),
        (ops.sigmoid_focal_loss, [0, -1], weight),
        (ops.softmax_focal_loss, [0, 3], None),
    ):
        with pytest.raises(ValueError, match=rf'targets .* between .* are between .*{target[1]}'):
            loss(logits, torch.tensor(target), 2.0, 0.25, given)


# MMDetection and MMSegmentation.


def test_the_environment_is_logged():
    from mmcv.utils import collect_env
    from mmengine.utils.dl_utils import collect_env as collect_base_env

    assert collect_env()['MMCV Compiler'] == 'none: operators of torchvision'
    assert collect_base_env()['MMEngine']


ARCH = dict(base='attention56', stem_channels=8, channels=(8, 16, 16, 16), poolings=(1, 1, 1, 0), units_after=(0,) * 4)
BACKBONE = dict(type='ResidualAttentionNet', arch=ARCH, out_indices=(0, 1, 2, 3), norm_outputs=True)


def check_gradients(model, losses):
    """All losses are finite, and all parameters get a gradient from them."""
    loss, _ = model.parse_losses(losses)
    assert loss.isfinite() and loss > 0
    loss.backward()
    missed = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missed


def test_mask_rcnn():
    registry = pytest.importorskip('mmdet.registry')
    importlib.import_module('mmdet.models')
    inputs = importlib.import_module('mmdet.testing').demo_mm_inputs

    coder = dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2])
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0, match_low_quality=True)
    sampler = dict(type='RandomSampler', num=32, pos_fraction=0.25, add_gt_as_proposals=True)
    proposals = dict(nms_pre=50, max_per_img=20, min_bbox_size=0, nms=dict(type='nms', iou_threshold=0.7))
    common = dict(assigner=assigner, sampler=sampler, allowed_border=-1, pos_weight=-1, debug=False)

    def features(size):
        layer = dict(type='RoIAlign', output_size=size, sampling_ratio=0)
        return dict(type='SingleRoIExtractor', roi_layer=layer, out_channels=16, featmap_strides=[4, 8, 16, 32])

    def test(nms):
        return dict(rpn=proposals, rcnn=dict(score_thr=0.0, max_per_img=5, mask_thr_binary=0.5, nms=nms))

    torch.manual_seed(0)
    model = registry.MODELS.build(
        ConfigDict(
            type='MaskRCNN',
            _scope_='mmdet',
            data_preprocessor=dict(type='DetDataPreprocessor', mean=[128] * 3, std=[64] * 3, pad_mask=True),
            backbone=BACKBONE,
            neck=dict(type='FPN', in_channels=[8, 16, 16, 16], out_channels=16, num_outs=4),
            rpn_head=dict(
                type='RPNHead',
                in_channels=16,
                feat_channels=16,
                anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[4, 8, 16, 32]),
                bbox_coder=coder,
            ),
            roi_head=dict(
                type='StandardRoIHead',
                bbox_roi_extractor=features(3),
                bbox_head=dict(
                    type='Shared2FCBBoxHead',
                    in_channels=16,
                    fc_out_channels=16,
                    roi_feat_size=3,
                    num_classes=4,
                    bbox_coder=coder,
                ),
                mask_roi_extractor=features(6),
                mask_head=dict(type='FCNMaskHead', num_convs=1, in_channels=16, conv_out_channels=16, num_classes=4),
            ),
            train_cfg=dict(rpn=common, rpn_proposal=proposals, rcnn=dict(common, mask_size=12)),
            test_cfg=test(dict(type='nms', iou_threshold=0.5)),
        )
    )
    data = model.data_preprocessor(
        inputs(image_shapes=[(3, 96, 128)] * 2, num_items=[3, 3], num_classes=4, with_mask=True), training=True
    )
    check_gradients(model, model(**data, mode='loss'))

    model.eval()
    for nms in (dict(type='nms', iou_threshold=0.5), dict(type='soft_nms', iou_threshold=0.5, min_score=0.01)):
        model.roi_head.test_cfg.nms = nms
        with torch.no_grad():
            found = model(**data, mode='predict')
        for sample in found:
            assert sample.pred_instances.masks.shape == (5, 96, 128)
            assert (sample.pred_instances.scores.diff() <= 0).all()


@pytest.mark.parametrize(
    'head', [dict(type='FCNHead', num_convs=1), dict(type='ASPPHead', dilations=(1, 2))], ids=['FCN', 'DeepLabV3']
)
def test_segmentation(head):
    registry = pytest.importorskip('mmseg.registry')
    importlib.import_module('mmseg.models')
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    torch.manual_seed(0)
    norm_cfg = dict(type='GN', num_groups=1)
    model = registry.MODELS.build(
        ConfigDict(
            type='EncoderDecoder',
            _scope_='mmseg',
            data_preprocessor=dict(type='SegDataPreProcessor', mean=[128] * 3, std=[64] * 3, size=(64, 64)),
            backbone=dict(BACKBONE, out_indices=(3,), norm_cfg=norm_cfg),
            decode_head=dict(head, in_channels=16, channels=16, in_index=0, num_classes=4, norm_cfg=norm_cfg),
            train_cfg=dict(),
            test_cfg=dict(mode='whole'),
        )
    )
    samples = [
        SegDataSample(
            gt_sem_seg=PixelData(data=torch.randint(4, (1, 64, 64))),
            metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64)),
        )
        for _ in range(2)
    ]
    images = [torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in samples]
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    check_gradients(model, model(**data, mode='loss'))
    with torch.no_grad():
        found = model.eval()(**data, mode='predict')
    for sample in found:
        assert sample.pred_sem_seg.data.shape == (1, 64, 64)
        assert torch.equal(sample.pred_sem_seg.data[0], sample.seg_logits.data.argmax(dim=0))
