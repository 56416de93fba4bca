import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmpretrain.datasets.transforms import RandomCrop, RandomErasing
from torch.nn import functional as F

from mmresattn.datasets import BatchProgressiveResize, BatchRandomCrop, BatchRandomErasing, BatchRandomFlip


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def positions(n, height=6, width=7):
    """Images that hold the number of each pixel, from 1; 0 is the border."""
    return (torch.arange(height * width, dtype=torch.uint8).view(height, width) + 1).expand(n, 3, -1, -1).contiguous()


def test_crops_are_windows_of_the_padded_image_each_as_likely():
    images = positions(4900)
    crops = BatchRandomCrop(padding=3)(images)
    windows = F.pad(images[0], [3] * 4).unfold(1, 6, 1).unfold(2, 7, 1)  # 3, 7, 7, 6, 7
    windows = windows.permute(1, 2, 0, 3, 4).flatten(0, 1)
    match = (crops[:, None] == windows).all((2, 3, 4))  # 4900, 49
    assert crops.dtype == torch.uint8 and (match.sum(1) == 1).all()
    counts = match.sum(0).double()  # 100 of each expected
    assert ((counts - 100) ** 2 / 100).sum() < 85  # chi-square of 48 degrees, p = 0.001


def test_crop_with_the_same_offset_as_that_of_mmpretrain():
    images = torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8)
    theirs = RandomCrop(crop_size=8, padding=4)
    torch.manual_seed(1)
    ours = BatchRandomCrop(padding=4)(images)[0]
    torch.manual_seed(1)
    top, left = torch.randint(9, (2, 1, 1)).flatten().tolist()
    theirs.rand_crop_params = lambda img: (top, left, 8, 8)
    expected = theirs.transform(dict(img=images[0].permute(1, 2, 0).numpy()))['img']
    assert np.array_equal(ours.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize('prob', [0.0, 0.3, 1.0])
def test_flips(prob):
    images = positions(2000)
    flipped = BatchRandomFlip(prob)(images)
    mirrored = (flipped == images.flip(3)).all((1, 2, 3))
    assert (mirrored | (flipped == images).all((1, 2, 3))).all()
    assert mirrored.double().mean() == pytest.approx(prob, abs=4 * (prob * (1 - prob) / 2000) ** 0.5)


def test_erased_rectangles_are_drawn_as_by_mmpretrain():
    n, settings = 3000, dict(erase_prob=0.6, min_area_ratio=0.05, max_area_ratio=0.3, aspect_range=(0.5, 2.0))
    erased = BatchRandomErasing(**settings, fill_color=(1, 2, 3))(torch.zeros(n, 3, 32, 24, dtype=torch.uint8))
    assert erased.dtype == torch.uint8 and torch.equal(
        erased, erased[:, :1] * torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1)
    )
    boxes = []
    for mask in erased[:, 0].bool():
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        if len(rows):
            top, left, h, w = rows[0].item(), columns[0].item(), len(rows), len(columns)
            assert mask[top : top + h, left : left + w].all() and mask.sum() == h * w  # one full rectangle
            boxes.append((top, left, h, w))
    assert len(boxes) / n == pytest.approx(0.6, abs=4 * (0.24 / n) ** 0.5)
    np.random.seed(0)
    theirs = np.array(
        [RandomErasing(**settings).random_patch.__wrapped__(RandomErasing(**settings), 32, 24) for _ in boxes]
    )
    ours = np.array(boxes)
    error = np.sqrt((ours.var(0) + theirs.var(0)) / len(boxes))
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()
    assert np.allclose(ours.std(0), theirs.std(0), rtol=0.1)


@pytest.mark.parametrize(('iteration', 'size'), [(0, 16), (29, 16), (30, 24), (59, 24), (60, 32), (99, 32)])
def test_images_grow_with_training(iteration, size):
    hub = MessageHub.get_instance(f'grow{iteration}')
    hub.update_info('iter', iteration)
    hub.update_info('max_iters', 100)
    resize = BatchProgressiveResize([(0, 16), (0.3, 24), (0.6, 32)])
    images = torch.full((2, 3, 32, 32), 77, dtype=torch.uint8)
    out = resize(images)
    assert out.shape == (2, 3, size, size) and (out - 77.0).abs().max() < 1e-3


@pytest.mark.parametrize(
    'sizes', [[], [(0.1, 16)], [(0, 16), (0, 32)], [(0, 16), (1, 32)], [(0, 8), (0.5, 16), (0.2, 32)]]
)
def test_shares_that_do_not_rise_from_0_are_refused(sizes):
    with pytest.raises(ValueError, match='rising from 0 to below 1'):
        BatchProgressiveResize(sizes)


@pytest.mark.parametrize(
    ('transform', 'arguments', 'message'),
    [
        (BatchRandomFlip, dict(prob=7), 'prob is from 0 to 1, not 7'),
        (BatchRandomFlip, dict(prob=float('nan')), 'prob is from 0 to 1'),
        (BatchRandomErasing, dict(erase_prob=7), 'erase_prob'),
        (BatchRandomErasing, dict(max_area_ratio=2), 'max_area_ratio is from 0 to 1, not 2'),
        (BatchRandomErasing, dict(min_area_ratio=0.5), 'above max_area_ratio'),
        (BatchRandomErasing, dict(fill_color=(300,)), 'fill_color'),
        (BatchRandomErasing, dict(aspect_range=(0, 1)), 'aspect_range'),
        (BatchRandomErasing, dict(aspect_range=(1,)), 'aspect_range'),
    ],
)
def test_findings_K4_9_impossible_settings_are_named(transform, arguments, message):
    with pytest.raises(ValueError, match=message):
        transform(**arguments)
