import numpy as np
import pytest
import torch
from matplotlib import colormaps

from mmresattn.visualization import overlay


def test_colours_and_shares():
    image = np.full((2, 3, 3), 200, np.uint8)
    attention = torch.tensor([[0.0, 0.5, 1.0], [2.0, -1.0, np.nan]])
    drawn = overlay(image, attention, low=0, high=1, alpha=0.25)
    colours = np.array(colormaps['inferno']([0.0, 0.5, 1.0, 1.0, 0.0]))[:, :3] * 255
    expected = np.rint(0.75 * 200 + 0.25 * colours)
    np.testing.assert_array_equal(drawn.reshape(-1, 3)[:5], expected)
    assert drawn[1, 2].tolist() == [200] * 3  # NaN: the image as it is
    assert drawn.dtype == np.uint8 and drawn.shape == image.shape
    own_range = overlay(image, attention.nan_to_num(0.3))
    np.testing.assert_array_equal(own_range, overlay(image, attention.nan_to_num(0.3), low=-1, high=2))


def test_a_map_of_another_size_is_resized_to_the_image():
    attention = torch.tensor([[0.0, 1.0]])
    image = np.zeros((4, 8, 3), np.uint8)
    drawn = overlay(image, attention, alpha=1.0)
    places = (np.arange(8) + 0.5) / 8 * 2 - 0.5  # in cells of the map, whose centres are at 0 and 1
    expected = np.rint(np.array(colormaps['inferno'](places.clip(0, 1)))[:, :3] * 255)
    assert np.abs(drawn - expected[None]).max() <= 1
    assert overlay(image, np.ones((2, 2)), alpha=1.0).max() < 10  # constant: dark, no division by 0


def test_what_is_wrong_is_said():
    image = np.zeros((4, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r'uint8 in RGB; got float64 of \(4, 8, 3\)'):
        overlay(image.astype(float), torch.rand(2, 2))
    with pytest.raises(ValueError, match=r'got \(3, 2, 2\)'):
        overlay(image, torch.rand(3, 2, 2))
    with pytest.raises(ValueError, match='alpha is from 0 to 1, not 2'):
        overlay(image, torch.rand(2, 2), alpha=2)
    with pytest.raises(ValueError, match='no finite value'):
        overlay(image, torch.full((2, 2), torch.nan))
