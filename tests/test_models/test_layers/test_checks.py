import pytest
import torch

from mmresattn.models.layers.checks import (
    check_each_stage,
    check_frozen_stages,
    check_images,
    check_integers,
    stage_indices,
)


@pytest.mark.parametrize('value', [0, -1, 1.0, '1', None, (1,)])
def test_no_integer(value):
    with pytest.raises(ValueError, match='heads is an integer of at least 1, not '):
        check_integers(heads=value)
    check_integers(0, heads=0, tails=True + 1)


@pytest.mark.parametrize('value', [(1, 2), (1, 2, 0), (1, 2, 1.5), 3, None, 'abc'])
def test_no_integer_for_each_stage(value):
    with pytest.raises(ValueError, match='strides has one integer of at least 1 for each of the 3 stages'):
        check_each_stage(3, strides=value)
    check_each_stage(3, 0, strides=[0, 1, 2], dilations=range(3))


def test_stages_by_index():
    assert stage_indices(-1, 3) == [2] and stage_indices((2, -3), 3) == [0, 2] and stage_indices({1, 0}, 3) == [0, 1]
    for wrong, message in [((), 'from -3 to 2, not'), (3, r'not \[3\]'), (0.5, r'not \[0.5\]'), (None, 'None'),
                           ((2, -1), 'twice')]:  # fmt: skip
        with pytest.raises(ValueError, match=f'out_indices .*{message}'):
            stage_indices(wrong, 3)
    for wrong in (-2, 4, 0.5, None):
        with pytest.raises(ValueError, match='frozen_stages is an integer from -1 to 3, not'):
            check_frozen_stages(wrong, 3)
    check_frozen_stages(3, 3)


def test_images():
    check_images(torch.zeros(1, 3, 4, 5), 3, 4)
    for shape in [(3, 4, 5), (1, 2, 4, 5)]:
        with pytest.raises(ValueError, match=r'Expected images of shape \(N, 3, H, W\), got'):
            check_images(torch.zeros(shape), 3)
    with pytest.raises(ValueError, match='5x4 are too small: this network needs at least 5x5'):
        check_images(torch.zeros(1, 3, 5, 4), 3, 5)
