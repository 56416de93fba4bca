import pytest
import torch
from mmengine.structures import BaseDataElement

from mmresattn.visualization.original_image import maps_on_images


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
