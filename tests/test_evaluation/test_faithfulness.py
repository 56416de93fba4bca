import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample
from torch import nn

from mmresattn.evaluation import (
    boxes_mask,
    deletion_and_insertion,
    faithfulness,
    mask_iou,
    mass_in_mask,
    perturbation_curve,
    pointing_game,
    road,
)
from mmresattn.evaluation.faithfulness import area, baseline_maps, pixel_order
from mmresattn.evaluation.imputation import impute

TINY = dict(base='attention56-cifar', channels=(8, 8, 8), modules=(1, 0, 1), poolings=(1, 1, 1), t=1, bottom_units=1)


@pytest.fixture
def weights():
    return torch.rand(1, 1, 4, 6, generator=torch.Generator().manual_seed(0))


def linear(weights):
    return lambda images: (images * weights).sum((1, 2, 3))


def test_curve_of_a_linear_model_is_known(weights):
    """Of a sum over pixels, deletion in the order of their contributions leaves the sums of the smaller ones."""
    ones = torch.ones(1, 1, 4, 6)
    order = pixel_order(weights[:, 0])
    deletion = perturbation_curve(linear(weights), ones, torch.zeros_like(ones), order, 24)
    falling = weights.flatten().sort(descending=True).values.double()
    kept = falling.sum() - torch.cat([torch.zeros(1), falling.cumsum(0)])
    torch.testing.assert_close(deletion[0].double(), kept.double(), atol=1e-5, rtol=0)
    # Twelve steps are every second point of it; the area is that of the trapezoids.
    coarse = perturbation_curve(linear(weights), ones, torch.zeros_like(ones), order, 12)
    torch.testing.assert_close(coarse[0], deletion[0, ::2])
    expected = sum((a + b) / 2 / 12 for a, b in zip(kept[::2], kept[2::2]))
    assert area(coarse).item() == pytest.approx(expected.item(), abs=1e-5)
    for steps in (0, 25):
        with pytest.raises(ValueError, match=f'from 1 to the 24 pixels of an image, not {steps}'):
            perturbation_curve(linear(weights), ones, ones, order, steps)


def test_the_true_map_has_the_least_deletion_and_the_largest_insertion(weights):
    images = torch.ones(1, 1, 4, 6) + torch.eye(4, 6)  # the blurred one differs
    contributions = (images * weights)[:, 0]
    maps = {'true': contributions, 'wrong': -contributions, 'flat': torch.zeros(1, 4, 6)}
    found = {name: deletion_and_insertion(linear(weights), images, one, steps=24) for name, one in maps.items()}
    assert found['true']['deletion'] < found['flat']['deletion'] < found['wrong']['deletion']
    # Of a linear model the two orders are each other's mirror.
    total = contributions.sum()
    both = found['true']['deletion'] + found['wrong']['deletion']
    assert both.item() == pytest.approx(total.item(), abs=1e-5)
    weighted = images * weights
    start = linear(weights)(images) - linear(weights)(blurred(images))
    assert start.abs() > 1e-3 and weighted.min() > 0
    gains = ((images - blurred(images)) * weights)[:, 0]
    best = deletion_and_insertion(linear(weights), images, gains, steps=24)['insertion']
    assert best > found['flat']['insertion'] and best > found['wrong']['insertion']


def blurred(images):
    """Gaussian of 3x5 pixels (the largest odd sizes within 4x6) and sigma 5, mirrored at the edges."""

    def weights(size):
        line = torch.exp(-0.5 * (torch.arange(size) - size // 2) ** 2 / 25.0)
        return line / line.sum()

    kernel = weights(3)[:, None] * weights(5)
    return F.conv2d(F.pad(images, (2, 2, 1, 1), mode='reflect'), kernel[None, None])


def test_insertion_begins_with_the_blurred_image(weights):
    images = torch.rand(1, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    one_step = deletion_and_insertion(linear(weights), images, weights[:, 0], steps=1)
    score = linear(weights)
    expected = (score(blurred(images)) + score(images)) / 2
    assert one_step['insertion'].item() == pytest.approx(expected.item(), abs=1e-5)
    assert one_step['deletion'].item() == pytest.approx(score(images).item() / 2, abs=1e-6)


def test_pixels_of_equal_attention_come_in_random_order():
    maps = torch.zeros(2, 10, 10)
    maps[:, 4, 7] = 1
    order = pixel_order(maps, seed=3)
    assert order[:, 0].tolist() == [47, 47] and sorted(order[0].tolist()) == list(range(100))
    assert torch.equal(order, pixel_order(maps, seed=3)) and not torch.equal(order, pixel_order(maps, seed=4))
    assert order[0, 1:51].double().mean() > 30  # row by row it would be 24.5


class Halves(nn.Module):
    """Class 0 is a bright left half, class 1 a bright right half."""

    def forward(self, x):
        return torch.stack([x[..., : x.shape[3] // 2].mean((1, 2, 3)), x[..., x.shape[3] // 2 :].mean((1, 2, 3))], 1)


def test_road():
    images = torch.zeros(1, 1, 8, 8)
    images[..., 1:7, 1:4] = 6  # inside of the left half, so that neighbours tell nothing of it
    true = images[:, 0] + torch.rand(1, 8, 8) * 0.1
    labels = torch.tensor([0])
    state = torch.get_rng_state()
    found = road(Halves(), images, true, labels, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    wrong = road(Halves(), images, -true, labels, seed=1)
    assert found.item() > 0.05 and wrong.item() == pytest.approx(-found.item(), abs=0.02)
    assert torch.equal(found, road(Halves(), images, true, labels, seed=1))
    flat = road(Halves(), images, torch.zeros(1, 8, 8), labels, seed=1)
    assert torch.isfinite(flat) and abs(flat.item()) < found.item()
    for percentiles in ((), (0, 50), (100,)):
        with pytest.raises(ValueError, match='above 0 and below 100'):
            road(Halves(), images, true, labels, percentiles)


def test_imputation_is_the_solution_of_the_authors_system():
    """Against the sparse factorisation of the grad-cam package, which is the authors' code."""
    NoisyLinearImputer = pytest.importorskip('pytorch_grad_cam.metrics.road').NoisyLinearImputer
    generator = torch.Generator().manual_seed(0)
    images = F.interpolate(torch.randn(3, 2, 9, 9, generator=generator), (33, 40), mode='bicubic')
    ranks = F.interpolate(torch.rand(3, 1, 4, 4, generator=generator), (33, 40), mode='bicubic')
    kept = ranks > torch.tensor([0.2, 0.5, 0.8])[:, None, None, None]
    expected = torch.stack([NoisyLinearImputer(0)(*pair) for pair in zip(images, kept[:, 0].float())])
    torch.testing.assert_close(impute(images, kept, noise=0, steps=200), expected, atol=1e-4, rtol=0)
    found = impute(images, kept, noise=0)
    assert torch.equal(found[kept.expand_as(found)], images[kept.expand_as(images)])
    assert (found - expected).abs().mean() < 0.03 * images.std()
    noisy = impute(images, kept, 0.5, generator) - found
    assert noisy[~kept.expand_as(noisy)].std().item() == pytest.approx(0.5, rel=0.05)
    nothing = impute(images[:1], torch.zeros(1, 1, 33, 40, dtype=torch.bool), noise=0)
    assert nothing.isfinite().all()


def test_road_is_that_of_the_grad_cam_package():
    road_of_package = pytest.importorskip('pytorch_grad_cam.metrics.road').ROADCombined
    target = pytest.importorskip('pytorch_grad_cam.utils.model_targets').ClassifierOutputSoftmaxTarget
    generator = torch.Generator().manual_seed(0)
    images = 3 * torch.randn(4, 3, 20, 24, generator=generator)
    maps = torch.rand(4, 20, 24, generator=generator)
    labels = torch.tensor([0, 1, 0, 1])
    expected = road_of_package([20, 60])(images, maps.numpy(), [target(int(i)) for i in labels], Halves())
    found = road(Halves(), images, maps, labels, [20, 60])
    assert abs(expected).max() > 0.01
    torch.testing.assert_close(found.float(), torch.from_numpy(expected), atol=2e-3, rtol=0)


def test_pointing_game_and_overlap():
    mask = boxes_mask([(2, 1, 5, 3), (7, 7, 8, 8)], (8, 8))
    expected = np.zeros((8, 8), bool)
    expected[1:3, 2:5] = expected[7, 7] = True
    np.testing.assert_array_equal(mask, expected)

    def point(row, column):
        attention = torch.zeros(8, 8)
        attention[row, column] = 1
        return attention

    assert pointing_game(point(1, 2), mask) and pointing_game(point(7, 7), mask)
    assert not pointing_game(point(0, 2), mask) and pointing_game(point(0, 2), mask, tolerance=1)
    assert not pointing_game(point(4, 6), mask, tolerance=2) and pointing_game(point(4, 6), mask, tolerance=2.9)
    coarse = torch.tensor([[1.0, 0], [0, 0]])  # the left upper quarter
    assert pointing_game(coarse, boxes_mask([(0, 0, 4, 4)], (8, 8)))
    nan = torch.full((8, 8), torch.nan)
    nan[1, 2] = 0.1
    assert pointing_game(nan, mask)

    assert mask_iou(torch.from_numpy(mask * 1.0), mask) == 1
    assert mask_iou(torch.from_numpy(~mask * 1.0), mask) == 0
    left = boxes_mask([(0, 0, 2, 8)], (8, 8))
    middle = boxes_mask([(1, 0, 3, 8)], (8, 8))
    assert mask_iou(torch.from_numpy(middle * 1.0), left) == pytest.approx(8 / 24)
    for wrong in (np.zeros((8, 8), bool), mask.astype(float)):
        with pytest.raises(ValueError, match='bool .* and not empty'):
            mask_iou(coarse, wrong)


def test_share_of_a_map_on_an_object():
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    values = np.arange(24.0).reshape(4, 6)
    assert mass_in_mask(values, mask) == pytest.approx((8 + 9 + 10 + 14 + 15 + 16) / 276)
    assert mass_in_mask(np.ones((2, 3)), mask) == pytest.approx(6 / 24)
    with pytest.raises(ValueError, match='0 everywhere'):
        mass_in_mask(np.zeros((2, 3)), mask)


def test_maps_that_know_nothing():
    maps = baseline_maps(3, (16, 20), seed=5)
    assert {one.shape for one in maps.values()} == {(3, 16, 20)}
    centre = maps['centre'][0]
    assert centre.argmax().item() in (7 * 20 + 9, 7 * 20 + 10, 8 * 20 + 9, 8 * 20 + 10)
    at = ((0.5 / 16 - 0.5) / 0.25) ** 2 + ((2.5 / 20 - 0.5) / 0.25) ** 2
    assert centre[0, 2].item() == pytest.approx(math.exp(-at / 2))
    assert torch.equal(maps['random'], baseline_maps(3, (16, 20), seed=5)['random'])
    assert not torch.equal(maps['random'], baseline_maps(3, (16, 20), seed=6)['random'])

    def rough(one):
        return one.diff(dim=2).abs().mean() / one.std()

    assert rough(maps['random, smooth']) < 0.5 * rough(maps['random'])


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    preprocessor = dict(type='ClsDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(
            dict(
                type='ImageClassifier',
                data_preprocessor=preprocessor,
                backbone=dict(type='ResidualAttentionNet', arch=TINY),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=5, in_channels=8),
            )
        )


def batches(sizes=(3, 2)):
    generator = torch.Generator().manual_seed(2)
    for size in sizes:
        images = torch.randint(0, 256, (size, 3, 16, 16), generator=generator, dtype=torch.uint8)
        yield dict(inputs=images, data_samples=[DataSample() for _ in images])


def test_a_table_over_a_data_set(model):
    pytest.importorskip('pytorch_grad_cam')
    state = torch.get_rng_state()
    found = faithfulness(model, batches(), steps=8, percentiles=(30, 70), reductions=['mean'])
    assert torch.equal(torch.get_rng_state(), state) and not model.training
    maps = ['backbone.stage1.attention1.map', 'backbone.stage3.attention1.map']
    assert list(found) == [*maps, 'gradcam', 'centre', 'random', 'random, smooth']
    assert all(list(one) == ['deletion', 'insertion', 'road'] for one in found.values())
    assert all(value.shape == (5,) and value.isfinite().all() for one in found.values() for value in one.values())
    again = faithfulness(model, batches(), steps=8, percentiles=(30, 70), reductions=['mean'])
    assert all(torch.equal(value, again[name][key]) for name, one in found.items() for key, value in one.items())
    # By hand: the second batch, the first module, deletion of the predicted class.
    batch = list(batches())[1]['inputs']
    x = (batch.float().flip(1) - 120) / 60
    taps = []
    handle = model.backbone.stage1.attention1.map.register_forward_hook(lambda m, i, out: taps.append(out))
    with torch.no_grad():
        labels = model(x, mode='tensor').argmax(1)
        handle.remove()
        attention = F.interpolate(taps[0].mean(1, keepdim=True), (16, 16), mode='bilinear')[:, 0]
        order = attention.flatten(1).argsort(1, descending=True)
        curve = []
        for step in range(9):
            deleted = x.flatten(2).clone()
            for image, pixels in zip(deleted, order):
                image[:, pixels[: 32 * step]] = 0
            scores = model(deleted.view_as(x), mode='tensor').softmax(1)
            curve.append(scores[range(2), labels])
    expected = torch.trapezoid(torch.stack(curve, 1), dx=1 / 8)
    torch.testing.assert_close(found[maps[0]]['deletion'][3:], expected, atol=1e-5, rtol=1e-4)


def test_what_is_wrong_is_said(model, monkeypatch):
    with pytest.raises(ValueError, match='no images'):
        faithfulness(model, [])
    with pytest.raises(KeyError, match='No attention map named'):
        faithfulness(model, batches(), ['backbone'])
    monkeypatch.setattr(model.data_preprocessor, 'pad_size_divisor', 32)
    with pytest.raises(ValueError, match=r'pads images of \(16, 16\) to \(32, 32\)'):
        faithfulness(model, batches())
    monkeypatch.undo()
    only = faithfulness(model, batches((2,)), ['backbone.stage3.attention1.map'], cams=(), percentiles=(), steps=4)
    assert list(only) == ['backbone.stage3.attention1.map', 'centre', 'random', 'random, smooth']
    assert list(only['centre']) == ['deletion', 'insertion']


def test_objects_and_several_reductions(model):
    """Without the curves and ROAD; the second image has no mask."""
    masks = [boxes_mask([(0, 0, 8, 16)], (16, 16)), None, boxes_mask([(4, 4, 12, 12)], (16, 16))]
    layer = 'backbone.stage3.attention1.map'
    options = dict(cams=(), percentiles=(), steps=0, masks=masks, baselines=['centre'])
    found = faithfulness(model, batches((2, 1)), [layer], reductions=['strongest', 'max'], **options)
    assert list(found) == [f'{layer}, strongest', f'{layer}, max', 'centre']
    assert all(list(of_map) == ['pointing', 'overlap'] for of_map in found.values())
    centre = baseline_maps(1, (16, 16))['centre'][0]
    assert found['centre']['pointing'].tolist() == [pointing_game(centre, masks[i]) for i in (0, 2)]
    assert found['centre']['overlap'].tolist() == pytest.approx([mask_iou(centre, masks[i]) for i in (0, 2)])
