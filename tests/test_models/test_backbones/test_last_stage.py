from mmengine.registry import DefaultScope

from mmresattn.models.backbones.last_stage import LastStage, without_last_stage


def test_a_plain_name_is_mmpretrains_in_any_scope():
    backbone = dict(type='ResNet', depth=18)
    with DefaultScope.overwrite_default_scope('mmengine'):
        assert without_last_stage(backbone)['num_stages'] == 3
        assert LastStage(backbone).out_channels == 512
