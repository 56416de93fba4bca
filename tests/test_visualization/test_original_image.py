import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope
from mmengine.structures import BaseDataElement

import mmresattn  # noqa: F401  before MMDetection
from mmresattn.visualization import View, maps_in_view, maps_on_images, run_and_follow


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
    with pytest.raises(ValueError, match='argument 2 is shorter'):
        maps_on_images(torch.rand(2, 1, 4, 4), [sample(ori_shape=(4, 4), img_shape=(4, 4))])
    with pytest.raises(ValueError, match=r"ori_shape and img_shape; this one has \['ori_shape'\]"):
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
    'efficientnet': [dict(type='EfficientNetCenterCrop', crop_size=64)],
    'drawn': [
        dict(type='RandomResizedCrop', scale=70, crop_ratio_range=(0.8, 1)),
        dict(type='RandomFlip', prob=0.5, direction='vertical'),
        dict(type='RandomCrop', crop_size=60, padding=4),
    ],
    'torchvision': [
        dict(type='NumpyToPIL', to_rgb=True),
        dict(type='torchvision/Resize', size=90),
        dict(type='torchvision/CenterCrop', size=80),
        dict(type='PILToNumpy', to_bgr=True),
    ],
    'colours': [
        dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
        dict(type='Posterize', bits=6, prob=1.0),
        dict(type='ResizeEdge', scale=100),
        dict(type='AutoContrast', prob=1.0),
        dict(type='GaussianBlur', radius=1.0, prob=1.0),
        dict(type='Equalize', prob=1.0),
    ],
}


def transforms(name):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return [TRANSFORMS.build(one) for one in PIPELINES[name]]


def spot(shape, row, column):
    y, x = np.indices(shape) + 0.5
    bright = 255 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2 / 6**2)
    return np.repeat(bright.round().astype(np.uint8)[..., None], 3, 2)


def follow(pipeline, image):
    return run_and_follow(pipeline, dict(img=image.copy(), img_shape=image.shape[:2], ori_shape=image.shape[:2]))


def centre_of_the_spot(image):
    """The centre of the brightest quarter of the range, which no monotonic change of the values moves."""
    bright = image.mean(-1)
    bright = (bright > 0.75 * bright.max()) * bright
    return tuple((bright * (places + 0.5)).sum() / bright.sum() for places in np.indices(bright.shape))


@pytest.mark.parametrize('name', PIPELINES)
@pytest.mark.parametrize('shape', [(200, 300), (301, 201)])
def test_a_view_says_where_the_pipeline_puts_a_spot(name, shape):
    """A soft spot of an image sent through the real pipeline comes out where the view says."""
    pipeline = transforms(name)
    if name == 'padded':
        shape = (200, 300)
    for seed, (row, column) in enumerate([(0.5, 0.5), (0.42, 0.56)]):
        row, column = row * shape[0], column * shape[1]
        np.random.seed(seed)
        state = np.random.get_state()
        results, view = follow(pipeline, spot(shape, row, column))
        assert results['img'].shape[:2] == view.output and view.original == shape
        image = results['img'].astype(float)
        if name == 'padded':
            image = image[:99, :149] - image[:99, :149].min()
        assert centre_of_the_spot(image) == pytest.approx(view.place(row, column), abs=1.3 if name == 'larger' else 0.4)
        after = np.random.get_state()[1:3]
        np.random.set_state(state)
        alone = Compose(pipeline)(dict(img=spot(shape, row, column), img_shape=shape, ori_shape=shape))
        np.testing.assert_array_equal(alone['img'], results['img'])  # following changes neither pixels nor draws
        assert np.array_equal(np.random.get_state()[1], after[0]) and np.random.get_state()[2] == after[1]


def test_views_that_can_be_computed_by_hand():
    image = spot((200, 300), 90, 170)
    assert follow([], image[:7, :9])[1] == View((7, 9), (7, 9))
    view = follow(transforms('imagenet'), image)[1]  # to 128x192, of which the middle 112x112
    assert view == View((200, 300), (112, 112), (0.64, 0.64), (-8, -40))
    assert follow(transforms('mirrored'), image[:100, :140])[1].scale == (1, -1)
    for shape in [(1, 1), (2, 3)]:
        small = follow(transforms('resized'), image[: shape[0], : shape[1]])[1]
        assert small.scale == (80 / shape[0], 96 / shape[1])


def brightest(results, copy):
    """A crop that depends on the content, by code that is not ours."""
    image = results['img']
    row, column = np.unravel_index(image[..., 0].argmax(), image.shape[:2])
    top, left = max(0, row - 20), max(0, column - 15)
    results['img'] = image[top : top + 50, left : left + 60]
    if copy:
        results['img'] = results['img'][:, ::-1].copy()
    return results


@pytest.mark.parametrize('copy', [False, True])
def test_a_crop_that_depends_on_the_content_is_the_one_that_was_taken(copy):
    for row, column in [(70.5, 120.5), (60.5, 40.5)]:
        view = follow([lambda results: brightest(results, copy)], spot((140, 200), row, column))[1]
        assert view.offset == pytest.approx((20.5 - row, column - 15.5 + 60 if copy else 15.5 - column))
        assert view.scale == pytest.approx((1, -1 if copy else 1))


def test_a_crop_that_depends_on_the_content_and_is_resized_is_placed_or_refused():
    def smart(results):
        rows, columns = np.nonzero(results['img'][..., 0] > threshold)
        part = results['img'][rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        results['img'] = cv2.resize(part, (64, 64))
        return results

    threshold = 100  # which small ramps do not change much
    image = spot((140, 200), 70.5, 120.5)
    rows, columns = np.nonzero(image[..., 0] > threshold)
    try:
        view = follow([smart], image)[1]
        assert view.place(rows.min(), columns.min()) == pytest.approx((0, 0), abs=3)
        assert view.place(rows.max() + 1, columns.max() + 1) == pytest.approx((64, 64), abs=3)
    except ValueError as error:
        assert 'Maps cannot be placed' in str(error)
    threshold = 0  # which they do
    with pytest.raises(ValueError, match='Maps cannot be placed on the original image: function of the test pipeline'):
        follow([smart], image)


def rotated(results):
    turn = cv2.getRotationMatrix2D((20, 20), 10, 1)
    results['img'] = cv2.warpAffine(results['img'], turn, (40, 40), borderMode=cv2.BORDER_REPLICATE)
    return results


def mirrored_in_place(results):
    results['img'][:] = results['img'][:, ::-1].copy()
    return results


def halved(results):
    results['img'] = cv2.resize(results['img'], (20, 20))
    return results


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_steps_by_other_code(dtype):
    """Rotations are refused, steps in place noticed, and resizing is followed, on pixels of any range."""
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    image = dict(uint8=image, uint16=image.astype(np.uint16) * 200, float32=image / np.float32(255))[dtype.__name__]
    with pytest.raises(ValueError, match='function of the test pipeline does more than'):
        follow([rotated], image)
    assert follow([mirrored_in_place], image)[1] == View((40, 40), (40, 40), (1, -1), (0, 40))
    view = follow([halved], image)[1]
    assert view.scale == pytest.approx((0.5, 0.5), rel=1e-3) and view.offset == pytest.approx((0, 0), abs=0.02)
    darker = follow([lambda results: {**results, 'img': (results['img'] / 2).astype(dtype)}], image)[1]
    assert darker == View((40, 40), (40, 40))


def test_padding_on_every_side_is_not_taken_for_padding_at_the_end():
    steps = [dict(type='NumpyToPIL'), dict(type='torchvision/Pad', padding=3), dict(type='PILToNumpy')]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        steps = [TRANSFORMS.build(one) for one in steps]
    with pytest.raises(ValueError, match='Pad of the test pipeline does more than'):
        follow(steps, spot((40, 40), 20, 20))


def test_a_map_of_places_lies_on_the_image():
    """A map that says its own place in what the network saw says, on the image, where the view puts each pixel."""
    view = View((200, 300), (112, 112), (0.64, 0.64), (-8, -40))
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
