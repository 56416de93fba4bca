import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models.utils import ClsDataPreprocessor
from mmpretrain.structures import DataSample

from mmresattn.datasets import BatchRandomCrop, BatchRandomFlip

SETTINGS = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0], to_rgb=True, num_classes=10)
TRANSFORMS = [dict(type='BatchRandomCrop', padding=2), dict(type='BatchRandomFlip')]


def build(**kwargs):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(type='BatchTransformPreprocessor', **SETTINGS, **kwargs))


@pytest.fixture
def data():
    torch.manual_seed(0)
    images = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(i) for i in range(6)])


def test_without_training_it_is_mmpretrains(data):
    ours, theirs = build(batch_transforms=TRANSFORMS)(data), ClsDataPreprocessor(**SETTINGS)(data)
    assert torch.equal(ours['inputs'], theirs['inputs'])
    assert [sample.gt_label.item() for sample in ours['data_samples']] == list(range(6))


def test_transforms_act_on_pixels_in_order_and_before_the_normalisation(data):
    pixels = data['inputs'].clone()
    torch.manual_seed(1)
    ours = build(batch_transforms=TRANSFORMS)(data, training=True)['inputs']
    torch.manual_seed(1)
    changed = BatchRandomFlip()(BatchRandomCrop(2)(pixels))
    mean, std = (torch.tensor(SETTINGS[key]).view(3, 1, 1) for key in ('mean', 'std'))
    assert torch.equal(ours, (changed.flip(1).float() - mean) / std)
    assert torch.equal(data['inputs'], pixels)  # the images in memory stay


def test_mixup_comes_after_them(data):
    """Of images that are all equal, mixing changes labels alone."""
    data['inputs'][:] = 200
    mixed = build(batch_augments=dict(augments=dict(type='Mixup', alpha=1.0)), batch_transforms=[TRANSFORMS[1]])(
        data, True
    )
    scores = torch.stack([sample.gt_score for sample in mixed['data_samples']])
    assert torch.allclose(scores.sum(1), torch.ones(6)) and (scores.max(1).values < 1).any()
    assert torch.allclose(mixed['inputs'][:, 0], torch.tensor(80 / 60))


def test_separate_images_are_refused(data):
    data['inputs'] = list(data['inputs'])
    with pytest.raises(TypeError, match="collate_fn=dict\\(type='default_collate'\\)"):
        build(batch_transforms=TRANSFORMS)(data, training=True)


def test_maps_that_would_stay_behind_are_refused(data):
    data['data_samples'][3].set_field(torch.rand(8, 8), 'gt_attention_map')
    with pytest.raises(TypeError, match='by the transforms of LoadAttentionMap'):
        build(batch_transforms=TRANSFORMS)(data, training=True)


def test_one_hot_scores_are_those_of_mmpretrain(data):
    ours = build(batch_transforms=[], to_onehot=True)(data, training=True)
    theirs = ClsDataPreprocessor(**SETTINGS, to_onehot=True)(data, training=True)
    for x, y in zip(ours['data_samples'], theirs['data_samples']):
        assert torch.equal(x.gt_score, y.gt_score) and x.gt_score.dtype == y.gt_score.dtype
