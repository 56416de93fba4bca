import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope
from mmengine.structures import BaseDataElement

import mmresattn  # noqa: F401  before MMDetection
from mmresattn.visualization import View, maps_in_view, maps_on_images, pipeline_view


def sample(**shapes):
    return BaseDataElement(metainfo=shapes)


@pytest.mark.parametrize('key', ['batch_input_shape', 'pad_shape'])
def test_a_map_lies_where_the_network_saw_it(key):
    """A map that says the place of its own cells in the input says the place of every pixel in the original."""
    stride = 4
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(24), indexing='ij')
    maps = torch.stack([rows + 0.5, columns + 0.5])[None] * stride  # of an input padded to 64x96
    samples = [
        sample(ori_shape=(120, 150), img_shape=(60, 75), **{key: (64, 96)}),
        sample(ori_shape=(20, 90, 3), img_shape=(20, 90, 3), **{key: (64, 96)}),
    ]
    for placed, scale, (height, width) in zip(
        maps_on_images(maps.expand(2, -1, -1, -1), samples), (2, 1), ((120, 150), (20, 90))
    ):
        assert placed.shape == (2, height, width)
        y, x = (torch.arange(side) + 0.5 for side in (height, width))
        inside = slice(stride * scale, -stride * scale)  # bilinear resizing does not extrapolate
        assert torch.allclose(placed[0, inside], (y / scale)[inside, None].expand(-1, width), atol=1e-4)
        assert torch.allclose(placed[1][:, inside], (x / scale)[inside].expand(height, -1), atol=1e-4)


def test_an_image_that_was_not_padded():
    maps = torch.rand(1, 3, 8, 8)
    (placed,) = maps_on_images(maps, [sample(ori_shape=(8, 8), img_shape=(8, 8))])
    assert torch.equal(placed, maps[0])


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match='2 maps are not of these 1 images'):
        maps_on_images(torch.rand(2, 1, 4, 4), [sample()])
    with pytest.raises(ValueError, match=r"ori_shape and img_shape; this one says \['ori_shape'\]"):
        maps_on_images(torch.rand(1, 1, 4, 4), [sample(ori_shape=(4, 4))])


PIPELINES = {
    'nothing': [],
    'resized': [dict(type='Resize', scale=(96, 80))],
    'larger': [dict(type='Resize', scale=(500, 900), interpolation='nearest')],
    'keep_ratio': [dict(type='Resize', scale=(96, 80), keep_ratio=True)],
    'imagenet': [dict(type='ResizeEdge', scale=128, edge='short'), dict(type='CenterCrop', crop_size=112)],
    'pillow': [
        dict(type='ResizeEdge', scale=90, edge='long', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=50),
    ],
    'padded': [
        dict(type='Pad', size=(310, 240), pad_val=dict(img=(114, 114, 114))),
        dict(type='Resize', scale=(155, 120)),
        dict(type='Normalize', mean=[1, 2, 3], std=[4, 5, 6]),
    ],
    'mirrored': [dict(type='RandomFlip', prob=1.0), dict(type='CenterCrop', crop_size=100)],
}


def transforms(name):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return [TRANSFORMS.build(one) for one in PIPELINES[name]]


@pytest.mark.parametrize('name', PIPELINES)
@pytest.mark.parametrize('shape', [(200, 300), (301, 201)])
def test_a_view_says_where_the_pipeline_puts_a_spot(name, shape):
    """A soft spot of an image sent through the real pipeline, in bytes, comes out where the view says."""
    pipeline = transforms(name)
    if name == 'padded':
        shape = (200, 300)
    view = pipeline_view(pipeline, shape)
    for row, column in [(0.5, 0.5), (0.4, 0.6)]:
        row, column = row * shape[0], column * shape[1]
        y, x = np.indices(shape) + 0.5
        spot = 255 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2 / 6**2)
        image = np.repeat(spot.round().astype(np.uint8)[..., None], 3, 2)
        seen = Compose(pipeline)(dict(img=image, img_shape=shape, ori_shape=shape))['img'][..., 0].astype(float)
        assert seen.shape == view.seen and view.original == shape
        seen = seen - seen[-1 if name != 'padded' else 0, 0]
        if name == 'padded':
            seen[100:] = 0  # the padding
            seen[:, 150:] = 0
        seen[seen < 0.05 * seen.max()] = 0
        v, u = np.indices(seen.shape) + 0.5
        found = (seen * v).sum() / seen.sum(), (seen * u).sum() / seen.sum()
        assert found == pytest.approx(view.place(row, column), abs=0.6 if name == 'larger' else 0.2)


def test_views_that_can_be_computed_by_hand():
    assert pipeline_view([], (7, 9)) == View((7, 9), (7, 9), pytest.approx((1, 1)), pytest.approx((0, 0), abs=1e-4))
    view = pipeline_view(transforms('imagenet'), (200, 300))  # to 128x192, of which the middle 112x112
    assert view.seen == (112, 112)
    assert view.scale == pytest.approx((0.64, 0.64), rel=1e-4)
    assert view.offset == pytest.approx((-8, -40), abs=1e-2)
    assert pipeline_view(transforms('mirrored'), (100, 140)).scale == pytest.approx((1, -1), rel=1e-5)
    for shape in [(1, 1), (2, 3)]:
        small = pipeline_view(transforms('resized'), shape)
        assert small.scale == pytest.approx((80 / shape[0], 96 / shape[1]), rel=1e-3)


def test_transforms_that_do_more_are_refused():
    def rotate(results):
        results['img'] = cv2.warpAffine(
            results['img'], cv2.getRotationMatrix2D((20, 20), 10, 1), (40, 40), borderMode=cv2.BORDER_REPLICATE
        )
        return results

    with pytest.raises(ValueError, match=r"The transforms \['function'\] do more than"):
        pipeline_view([rotate], (40, 40))


def test_a_map_of_places_lies_on_the_image():
    """A map that says its own place in what the network saw says, on the image, where the view puts each pixel."""
    view = pipeline_view(transforms('imagenet'), (200, 300))
    stride = 4
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(30), indexing='ij')
    maps = torch.stack([rows + 0.5, columns + 0.5]) * stride  # of an input padded to 128x120
    placed = maps_in_view(maps, view, (128, 120))
    assert placed.shape == (2, 200, 300) and placed.dtype == torch.float32
    seen = ~placed[0].isnan()
    assert torch.equal(seen, ~placed[1].isnan())
    y, x = np.nonzero(seen.numpy())
    # 112 of 128 and of 192 pixels, at 0.64 a pixel: from the centre of a pixel to that of another.
    assert (y.min(), y.max(), x.min(), x.max()) == (12, 187, 62, 237)
    expected = view.place(torch.arange(200)[:, None] + 0.5, torch.arange(300) + 0.5)
    for found, places in zip(placed, expected):
        inside = seen & (places > stride / 2)  # no extrapolation beyond the outermost centres
        assert torch.allclose(found[inside], places.expand(200, 300)[inside].float(), atol=1e-3)


def test_without_crop_it_is_interpolation():
    maps = torch.rand(3, 5, 6)
    view = View((40, 30), (16, 18), (16 / 40, 18 / 30), (0, 0))
    expected = F.interpolate(maps[None], (40, 30), mode='bilinear', align_corners=False)[0]
    assert torch.allclose(maps_in_view(maps, view), expected, atol=1e-5)
