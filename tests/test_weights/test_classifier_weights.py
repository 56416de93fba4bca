import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from safetensors.torch import save_file
from torch import nn

from mmresattn.weights import check_classifier_weights, drop_classifier_weights

ARCH = dict(
    base='attention56',
    stem_channels=8,
    channels=(8, 16),
    strides=(1, 2),
    modules=(1, 1),
    poolings=(1, 1),
    units_after=(0, 1),
    t=1,
)
BACKBONE = dict(
    type='ResidualAttentionNet',
    arch=ARCH,
    out_indices=(0, 1),
    norm_outputs=True,
    frozen_stages=1,
    norm_eval=True,
)
NEW = ['norm1']


def init(checkpoint, **kwargs):
    return dict(type='ClassifierWeights', checkpoint=checkpoint and str(checkpoint), new=NEW, **kwargs)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A classifier that MMPretrain trained for three steps, with averaged weights, and its checkpoint."""
    folder = tmp_path_factory.mktemp('classifier')
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(type='ImageArrays', data='digits', split='train', pipeline=[
            dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')
        ]),
    )  # fmt: skip
    cfg = Config(dict(
        default_scope='mmpretrain',
        work_dir=str(folder),
        log_level='ERROR',
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='ResidualAttentionNet', arch=ARCH),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
        ),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[dict(type='EMAHook', momentum=0.5, update_buffers=True)],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3)),
    ))  # fmt: skip
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner.model, folder / 'iter_3.pth'


def build(init_cfg, **kwargs):
    backbone = MODELS.build(dict(BACKBONE, init_cfg=init_cfg, **kwargs))
    backbone.init_weights()
    return backbone


def test_a_backbone_gets_every_weight_of_the_averaged_classifier(trained):
    classifier, path = trained
    saved = torch.load(path, weights_only=True)
    averaged = {key.removeprefix('backbone.'): value for key, value in saved['state_dict'].items()}
    backbone = build(init(path))
    state = backbone.state_dict()
    new = {key for key in state if key.startswith(tuple(NEW))}
    assert len(new) == 5 and state.keys() - new == averaged.keys() - {'head.fc.weight', 'head.fc.bias'}
    assert all(torch.equal(state[key], averaged[key]) for key in state.keys() - new)
    # The average, whose statistics moved, and not the last step.
    last = saved['ema_state_dict']['module.backbone.stem.0.weight']
    assert not torch.equal(state['stem.0.weight'], last)
    assert state['stem.1.0.running_mean'].abs().max() > 0
    # Evaluated alike, up to the norms that are new.
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = MODELS.build(dict(type='ResidualAttentionNet', arch=ARCH)).eval()
        expected.load_state_dict({key: value for key, value in averaged.items() if not key.startswith('head.')})
        assert torch.equal(backbone.train()(images)[-1], expected(images)[-1])  # train: norm_eval


def test_other_forms_of_the_same_weights(trained, tmp_path):
    _, path = trained
    saved = torch.load(path, weights_only=True)['state_dict']
    expected = build(init(path)).state_dict()
    bare = {key.removeprefix('backbone.'): value for key, value in saved.items() if key.startswith('backbone.')}
    torch.save(saved, tmp_path / 'weights_alone.pth')
    torch.save({f'module.{key}': value for key, value in saved.items()}, tmp_path / 'of_ddp.pth')
    torch.save(bare, tmp_path / 'backbone_alone.pth')
    save_file({key: value.contiguous() for key, value in saved.items()}, tmp_path / 'weights.safetensors')
    for name, prefix in (
        ('weights_alone.pth', 'backbone.'),
        ('of_ddp.pth', 'backbone.'),
        ('backbone_alone.pth', ''),
        ('weights.safetensors', 'backbone.'),
    ):
        got = build(init(tmp_path / name, prefix=prefix)).state_dict()
        assert all(torch.equal(got[key], expected[key]) for key in expected), name


def test_a_backbone_may_end_before_the_classifier_does(trained):
    backbone = build(init(trained[1]), out_indices=0)
    assert hasattr(backbone, 'stage1') and not hasattr(backbone, 'stage2')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(arch=dict(ARCH, channels=(8, 32))),
            r'\d+ of another shape \(stage2.unit1.conv1.*\(4, 8, 1, 1\) for \(8, 8, 1, 1\)',
        ),
        (dict(arch=dict(ARCH, modules=(1, 2))), r'\d+ not in the file \(stage2.attention2.* more\)'),
        (dict(arch=dict(ARCH, modules=(1, 0))), r'\d+ not in the model \(stage2.attention1'),
        (dict(arch=dict(ARCH, t=2)), r'\d+ not in the file \(stage1.attention1.trunk.1'),
        (dict(in_channels=1), r'1 of another shape \(stem.0.weight \(8, 3, 7, 7\) for \(8, 1, 7, 7\)\)\.'),
        (dict(init_cfg=dict(new=[])), r'4 not in the file \(norm1.0.weight'),
        (dict(init_cfg=dict(prefix='model.')), r"has no weights under 'model.'. .*set prefix='backbone.'"),
    ],
)
def test_a_checkpoint_of_another_net_is_refused_early_and_late(trained, change, message):
    cfg = dict(BACKBONE, **change)
    cfg['init_cfg'] = dict(init(trained[1]), **change.get('init_cfg', {}))
    with pytest.raises(RuntimeError, match=message) as early:
        check_classifier_weights(dict(backbone=cfg))
    backbone = MODELS.build(cfg)
    with pytest.raises(RuntimeError) as late:
        backbone.init_weights()
    assert str(early.value) == str(late.value)
    assert re.search('model.backbone.init_cfg.checkpoint=|set prefix=', str(late.value))


@pytest.mark.parametrize(
    ('checkpoint', 'error', 'message'),
    [(None, ValueError, 'no checkpoint is given'), ('none.pth', FileNotFoundError, 'none.pth, which does not exist')],
)
def test_no_checkpoint_is_refused_early_and_late(checkpoint, error, message):
    cfg = dict(BACKBONE, init_cfg=[dict(type='Kaiming', layer='Conv2d'), init(checkpoint)])
    model = dict(type='Detector', parts=[dict(backbone=cfg)])  # anywhere in a model, which is not built
    with pytest.raises(error, match=message) as early:
        check_classifier_weights(model)
    with pytest.raises(error) as late:
        MODELS.build(cfg).init_weights()
    assert str(early.value) == str(late.value) and 'load_from=' in str(late.value)
    drop_classifier_weights(model)
    check_classifier_weights(model)
    assert cfg['init_cfg'] is None


def test_nothing_initialises_itself_afterwards(trained):
    """A part with an initialiser of its own, as in MMPretrain's backbones, comes after its parent's."""
    from mmengine.model import BaseModule

    class Stem(BaseModule):
        def __init__(self):
            super().__init__(dict(type='Constant', layer='Conv2d', val=7))
            self.conv = nn.Conv2d(3, 8, 7, bias=False)

    class Net(BaseModule):
        def __init__(self, init_cfg):
            super().__init__(init_cfg)
            self.stem = Stem()

    weight = torch.load(trained[1], weights_only=True)['state_dict']['backbone.stem.0.weight']
    path = trained[1].with_name('net.pth')
    torch.save({'backbone.stem.conv.weight': weight}, path)
    net = Net(dict(type='ClassifierWeights', checkpoint=str(path)))
    net.init_weights()
    assert torch.equal(net.stem.conv.weight, weight)
    net = Net(dict(type='ClassifierWeights', checkpoint=str(path)))
    net.zero_init_residual = True  # MMPretrain's ResNet
    with pytest.raises(ValueError, match='zero_init_residual=False'):
        net.init_weights()
