import numpy as np
import pytest
import torch

from mmresattn.visualization import attention_figure, reduce_channels


def test_reductions():
    maps = torch.zeros(2, 3, 4, 4)
    maps[0, 1, 0, 0] = 1
    maps[1, 2, 3, 3] = 1
    maps[:, 0] = 0.9  # high, but constant
    strongest = reduce_channels(maps, 'strongest')
    assert torch.equal(strongest[:, 0], torch.stack([maps[0, 1], maps[1, 2]]))
    assert torch.allclose(reduce_channels(maps)[0, 0, 0, 0], torch.tensor(1.9 / 3))
    with pytest.raises(ValueError, match="'mean' or 'strongest', not 'max'"):
        reduce_channels(maps, 'max')


def test_attention_lies_where_it_is(tmp_path):
    """A map that is bright in its upper left corner gives a picture that is bright in that corner."""
    corner = torch.zeros(1, 1, 4, 4)
    corner[..., :2, :2] = 1
    figure = attention_figure([np.zeros((16, 16, 3), np.uint8)], {'backbone.stage1.attention1.map': corner}, ['one'])
    image, overlay = figure.axes[1].images
    assert image.get_array().shape == (16, 16, 3)
    shown = overlay.get_array()
    assert shown.shape == (16, 16) and shown[:6, :6].min() == 1 and shown[10:].max() == shown[:, 10:].max() == 0
    assert figure.axes[1].get_title() == 'stage1\nattention1.map' and figure.axes[0].get_ylabel() == 'one'
    figure.savefig(tmp_path / 'figure.pdf')
