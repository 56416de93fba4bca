import pytest
from mmengine.registry import DefaultScope

from mmresattn.models.backbones.last_stage import LastStage, without_last_stage


def test_a_plain_name_is_mmpretrains_in_any_scope():
    backbone = dict(type='ResNet', depth=18)
    with DefaultScope.overwrite_default_scope('mmengine'):
        assert without_last_stage(backbone)['num_stages'] == 3
        assert LastStage(backbone).out_channels == 512


@pytest.mark.parametrize(
    ('backbone', 'stages'),
    [
        (dict(type='ResNet', depth=18), 3),
        (dict(type='SEBNInception'), 2),
        (dict(type='ResidualAttentionNet', arch='attention56-cifar'), 2),
        (dict(type='CIFARWideResNet', depth=16, widen_factor=2), 2),
    ],
)
def test_the_last_stage_is_not_to_be_frozen(backbone, stages):
    frozen = dict(backbone, frozen_stages=stages)
    assert without_last_stage(frozen)['frozen_stages'] == stages
    assert all(p.requires_grad for p in LastStage(frozen).parameters())
    for cut in (without_last_stage, LastStage):
        with pytest.raises(ValueError, match=f'frozen_stages={stages + 1} of .* at most frozen_stages={stages}'):
            cut(dict(backbone, frozen_stages=stages + 1))
