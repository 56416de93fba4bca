import re
from copy import deepcopy
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from safetensors.torch import load_file

from mmresattn.apis import build_runner
from mmresattn.models import ResidualAttentionNet
from mmresattn.models.layers import edit_attention, record_attention
from tests.conftest import ROOT, WithoutBatchNorm
from tests.test_configs import PARAMETERS

pytest.importorskip('mmseg')

CONFIGS = sorted(path.name for path in ROOT.glob('configs/segmentation/*.py'))
FULL = [name for name in CONFIGS if 'dsb2018' not in name and 'own' not in name]
UNTRAINED = [name for name in FULL if 'resnet50' not in name]  # on Attention-56, without published weights
STRIDES = {
    'fcn_attention56-d8': (8, 8),
    'deeplabv3plus_attention56-d8': (4, 8, 8),
    'upernet_attention56': (4, 8, 16, 32),
    'upernet_attention56-cifar': (2, 4, 8),
    'deeplabv3plus_attention-resnet50-d8': (4, 8, 8),
    'upernet_attention-resnet50': (4, 8, 16, 32),
}
NUCLEI = 'upernet_attention56-cifar_1xb4-1200_dsb2018-128x128.py'
TINY = dict(base='attention56', stem_channels=8, channels=(16, 16, 16, 16))
TINY_CIFAR = dict(base='attention56-cifar', stem_channels=8, channels=(64, 128, 256), mask_widths=(4, 4, 4))
D8 = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))


@cache
def _read(path):
    return Config.fromfile(path)


def config(name):
    return deepcopy(_read(ROOT / 'configs/segmentation' / name))


def model_of(name):
    return re.match(r'(.+)_\dxb', name)[1]


def build(model, device='cpu'):
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device(device):
        return MODELS.build(model)


def test_each_decoder_is_there_for_both_layouts():
    decoders = set(STRIDES) - {'upernet_attention56-cifar'}
    settings = ('4xb4-160k_ade20k-512x512', '4xb2-80k_cityscapes-512x1024')
    assert set(FULL) == {f'{decoder}_{setting}.py' for decoder in decoders for setting in settings}
    elsewhere = [path.name for path in ROOT.glob('configs/[!_]*/**/*.py') if path.parent.name != 'segmentation']
    assert not set(CONFIGS) & set(elsewhere) and all(name == name.lower() for name in CONFIGS)


@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds_and_fits_together(name):
    docstring = re.match(r'"""(.+?)"""', (ROOT / 'configs/segmentation' / name).read_text(), re.S)[1]
    assert re.search(rf'(tools/train.py|tools/dist_train.sh) configs/segmentation/{re.escape(name)}', docstring)
    cfg = config(name)
    assert cfg.custom_imports.imports[1:] == ['mmresattn.compat.enabled', 'mmresattn.compat.operators_enabled']
    assert cfg.default_scope == 'mmseg'
    gpus, images = map(int, re.search(r'_(\d)xb(\d)', name).groups())
    assert cfg.train_dataloader.batch_size == images and cfg.auto_scale_lr.base_batch_size == gpus * images

    # Test-time augmentation takes the first.
    assert cfg.data_preprocessor == {**cfg.model.data_preprocessor, '_scope_': 'mmseg'}
    if 'own' not in name:  # whose classes are read from the data
        with DefaultScope.overwrite_default_scope('mmseg'):
            dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'lazy_init': True})  # reads no file
        classes = dataset.metainfo['classes']
        assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == len(classes)
    size = tuple(map(int, re.search(r'-(\d+)x(\d+)\.py', name).groups()))
    crop = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomCrop')
    assert crop.crop_size == cfg.model.data_preprocessor.size == size

    stated = re.search(r'([\d,]+) parameters', docstring)[1]
    assert PARAMETERS[f'configs/segmentation/{name}'] == int(stated.replace(',', ''))
    if 'cityscapes' in name:  # the network of ADE20K but for its classes
        return
    model = build(cfg.model, 'meta').eval()
    with WithoutBatchNorm():
        features = model.extract_feat(torch.empty(1, 3, 64, 128, device='meta'))
        logits = [head(features) for head in (model.decode_head, model.auxiliary_head)]
    assert [tuple(f.shape[2:]) for f in features] == [(64 // s, 128 // s) for s in STRIDES[model_of(name)]]
    for head in (model.decode_head, model.auxiliary_head):
        indices = head.in_index if isinstance(head.in_index, (list, tuple)) else [head.in_index]
        channels = head.in_channels if isinstance(head.in_channels, (list, tuple)) else [head.in_channels]
        assert [features[index].shape[1] for index in indices] == list(channels)
    # Nothing that is built stays without a gradient, at which DDP would stop; nothing is frozen.
    sum(output.sum() for output in logits).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None and '.conv_seg' not in n] == []


@pytest.mark.parametrize('name', UNTRAINED)
def test_missing_weights_are_said_before_anything_is_built(name, monkeypatch):
    monkeypatch.setattr(DATASETS, 'build', lambda *_, **__: pytest.fail('a data set was built'))
    cfg = config(name)
    with pytest.raises(ValueError, match=r'no checkpoint is given.*init_cfg\.checkpoint=PATH'):
        build_runner(cfg, ['train_dataloader', 'val_dataloader'])
    cfg.model.backbone.init_cfg.checkpoint = 'nowhere.pth'
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        build_runner(cfg, ['train_dataloader', 'val_dataloader'])


@pytest.mark.parametrize('name', [name for name in UNTRAINED if 'ade20k' in name])
def test_backbone_starts_from_all_of_a_classifier(name, tmp_path):
    torch.manual_seed(0)
    classifier = ResidualAttentionNet(TINY)
    weights = {f'backbone.{key}': torch.randn_like(value.float()) for key, value in classifier.state_dict().items()}
    torch.save(dict(state_dict=weights), tmp_path / 'classifier.pth')
    backbone = config(name).model.backbone
    backbone.update(arch=TINY, norm_cfg=dict(type='BN'))
    backbone.init_cfg.checkpoint = str(tmp_path / 'classifier.pth')
    backbone = build(backbone)
    backbone.init_weights()
    own = backbone.state_dict()
    new = {f'norm{i + 1}.0' for i in backbone.out_indices if i < 3}  # of the outputs before the last
    assert {key.rpartition('.')[0] for key in own.keys() - classifier.state_dict().keys()} == new
    for key in classifier.state_dict().keys() & own.keys():
        assert torch.equal(own[key], weights[f'backbone.{key}'].to(own[key].dtype)), key
    assert all((own[f'{norm}.weight'] == 1).all() for norm in new)


def test_nuclei_start_from_the_weights_of_this_repository():
    cfg = config(NUCLEI)
    backbone = build(cfg.model).backbone
    backbone.init_weights()
    own = backbone.state_dict()
    weights = load_file(ROOT / 'weights/attention56_cifar10_fast.safetensors')
    shared = {key.removeprefix('backbone.') for key in weights if key.startswith('backbone.')}
    assert own.keys() - shared == {key for key in own if key.startswith(('norm1.', 'norm2.'))}
    assert all(torch.equal(own[key], weights[f'backbone.{key}'].to(own[key].dtype)) for key in shared)


class TestOutputStride8:
    @staticmethod
    def nets(**kwargs):
        """The classifier's backbone and the dilated one, with the same weights."""
        torch.manual_seed(0)
        nets = [ResidualAttentionNet(TINY, out_indices=(0, 1, 2, 3), norm_outputs=True, **k) for k in ({}, D8 | kwargs)]
        for parameter in nets[0].double().parameters():
            torch.nn.init.normal_(parameter, std=0.3 if parameter.dim() > 1 else 1)
        nets[1].double().load_state_dict(nets[0].state_dict())
        return [net.eval() for net in nets]

    def test_weights_are_those_of_the_classifier(self):
        strided, dilated = ({k: v.shape for k, v in net.state_dict().items()} for net in self.nets())
        assert strided == dilated
        head = {key for key in strided if key.startswith(('norm1.', 'norm2.', 'norm3.'))}
        assert strided.keys() - head == ResidualAttentionNet(TINY).state_dict().keys()

    @pytest.mark.parametrize(('height', 'width'), [(128, 192), (131, 195)])
    def test_trunk_is_the_strided_one_at_more_positions(self, height, width):
        """A stage without its stride computes the same function, at every position instead of every second one: its
        dilation makes up for the stride (à trous). The masks pool and interpolate on the denser grid, so that this is
        true of the whole net where they are constant."""
        strided, dilated = self.nets()
        images = torch.randn(2, 3, height, width, dtype=torch.double)
        constant = {f'stage{i}.attention1.map': lambda mask: torch.full_like(mask, 0.5) for i in (1, 2, 3)}
        with edit_attention(strided, constant), edit_attention(dilated, constant), torch.no_grad():
            expected, found = strided(images), dilated(images)
        for few, many, step in zip(expected, found, (1, 1, 2, 4)):
            assert many.shape[2:] == found[1].shape[2:] or step == 1
            torch.testing.assert_close(many[..., ::step, ::step], few, rtol=1e-10, atol=1e-10)
        with torch.no_grad():
            assert not torch.allclose(dilated(images)[2][..., ::2, ::2], strided(images)[2])

    def test_stage_between_those_positions_is_the_strided_one_on_a_shifted_input(self):
        strided, dilated = self.nets(dilations=(1, 1, 1, 2), strides=(1, 2, 2, 1))
        features = torch.randn(1, 16, 24, 32, dtype=torch.double)
        with torch.no_grad():
            dense = dilated.stage4(features)
            for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
                few = strided.stage4(features[..., y:, x:])[..., 3:-3, 3:-3]  # three 3x3 convolutions from the border
                many = dense[..., y::2, x::2][..., 3:-3, 3:-3]
                torch.testing.assert_close(many, few, rtol=1e-10, atol=1e-10)


@pytest.fixture
def nuclei(tmp_path, monkeypatch):
    """Config for nuclei on a small net, with bright discs on a dark ground for images."""
    rng = np.random.default_rng(0)
    for split, number in (('train', 8), ('val', 1)):
        for kind in ('img_dir', 'ann_dir'):
            (tmp_path / f'dsb2018/{kind}/{split}').mkdir(parents=True)
        for i in range(number):
            mask = np.zeros((80, 96), np.uint8)
            for y, x in rng.integers(12, 68, (3, 2)):
                cv2.circle(mask, (int(x), int(y)), 9, 1, -1)
            image = rng.normal(8, 2, (*mask.shape, 1)) + 60 * mask[..., None]
            cv2.imwrite(str(tmp_path / f'dsb2018/img_dir/{split}/{i}.png'), np.repeat(image.clip(0, 255), 3, 2))
            cv2.imwrite(str(tmp_path / f'dsb2018/ann_dir/{split}/{i}.png'), mask)
    monkeypatch.setenv('MMRESATTN_DATA', str(tmp_path))
    cfg = Config.fromfile(ROOT / 'configs/segmentation' / NUCLEI)
    cfg.merge_from_dict(dict(launcher='none', work_dir=str(tmp_path / 'work'), log_level='ERROR'))
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.train_dataloader.batch_size = 4
    for step in cfg.train_dataloader.dataset.pipeline:
        step.update({'RandomCrop': dict(crop_size=(64, 64)), 'RandomResize': dict(scale=(96, 80))}.get(step.type, {}))
    return cfg


def weights_of(path):
    return torch.load(path, map_location='cpu', weights_only=True)['state_dict']


def test_nuclei_are_learned_and_a_resumed_training_ends_the_same(nuclei, tmp_path):
    nuclei.train_cfg.update(max_iters=4, val_interval=4)
    nuclei.param_scheduler = []
    nuclei.optim_wrapper.optimizer.lr = 1e-2
    nuclei.default_hooks.checkpoint.update(interval=2, max_keep_ckpts=-1)
    nuclei.default_hooks.logger.interval = 1
    runner = build_runner(deepcopy(nuclei), ['train_dataloader', 'val_dataloader'])
    runner.train()
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert losses[-1] < 0.9 * losses[0]
    whole = weights_of(tmp_path / 'work/iter_4.pth')
    resumed = deepcopy(nuclei)
    resumed.update(work_dir=str(tmp_path / 'resumed'), load_from=str(tmp_path / 'work/iter_2.pth'), resume=True)
    build_runner(resumed, ['train_dataloader', 'val_dataloader']).train()
    again = weights_of(tmp_path / 'resumed/iter_4.pth')
    assert whole.keys() == again.keys() and all(torch.equal(whole[key], again[key]) for key in whole)


def test_attention_of_a_segmenter_covers_the_image(nuclei):
    model = build(nuclei.model).eval()
    images = torch.zeros(2, 3, 80, 104)
    images[1, :, 8:16, 80:88] = 3  # the second image differs from the first one in this square
    with record_attention(model) as maps, torch.no_grad():
        logits = model(images)
    assert list(maps) == [f'backbone.stage{i}.attention1.map' for i in (1, 2, 3)]
    assert [tuple(m.shape) for m in maps.values()] == [(2, 64, 40, 52), (2, 128, 20, 26), (2, 256, 10, 13)]
    assert logits.shape == (2, 2, 40, 52)
    for attention in maps.values():
        change = (attention[1] - attention[0]).abs().mean(0)
        change = torch.nn.functional.interpolate(change[None, None], (80, 104), mode='bilinear')[0, 0]
        y, x = divmod(change.argmax().item(), 104)
        assert abs(y - 12) <= 24 and abs(x - 84) <= 24  # near that square; a cell of the last map has 8 pixels


def test_windows_cover_an_image_of_any_size(nuclei):
    """Sliding inference gives logits of the whole image; with a window as large as the image they are those of whole
    inference."""
    from mmseg.structures import SegDataSample

    model = build(nuclei.model).eval()
    images = torch.randn(1, 3, 75, 101)
    meta = dict(ori_shape=(75, 101), img_shape=(75, 101), pad_shape=(75, 101))
    samples = [SegDataSample(metainfo=meta)]

    def logits(**test_cfg):
        model.test_cfg.update(test_cfg)
        with torch.no_grad():
            return model.predict(images, deepcopy(samples))[0].seg_logits.data

    whole = logits(mode='whole')
    assert whole.shape == (2, 75, 101)
    assert torch.equal(logits(mode='slide', crop_size=(75, 101), stride=(50, 50)), whole)
    windows = logits(mode='slide', crop_size=(64, 64), stride=(48, 48))
    assert windows.shape == whole.shape and windows.isfinite().all() and not torch.equal(windows, whole)


@pytest.mark.parametrize(
    ('base', 'options'),
    [
        (
            'fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py',
            {'backbone.base_channels': 8, 'decode_head.in_channels': 64, 'auxiliary_head.in_channels': 32},
        ),
        (
            'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
            {
                'backbone.embed_dims': 12,
                'backbone.depths': [1, 1, 1, 1],
                'backbone.init_cfg': None,
                'decode_head.in_channels': [12, 24, 48, 96],
                'auxiliary_head.in_channels': 48,
            },
        ),
    ],
    ids=['ResNet', 'Swin'],
)
def test_segmenters_of_mmseg_work_beside_ours(base, options, tmp_path):
    (tmp_path / 'config.py').write_text(f'_base_ = {"mmseg::" + base!r}\n')
    cfg = Config.fromfile(tmp_path / 'config.py')
    options = {'pretrained': None, 'decode_head.channels': 16, 'auxiliary_head.channels': 16, **options}
    cfg.merge_from_dict({f'model.{key}': value for key, value in options.items()})
    model = build(cfg.model).eval()
    with torch.no_grad():
        (found,) = model.predict(torch.randn(1, 3, 64, 96))
    assert found.seg_logits.data.shape == (cfg.model.decode_head.num_classes, 64, 96)
    assert found.pred_sem_seg.data.shape == (1, 64, 96)


def test_attention_as_on_the_page(nuclei, tmp_path, monkeypatch, capsys, saved_figures):
    page = (ROOT / 'docs/segmentation.md').read_text()
    (snippet,) = re.findall(r'```python\n(.+?)```', page, re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    name = NUCLEI.removesuffix('.py')
    (tmp_path / 'work_dirs' / name).mkdir(parents=True)
    metainfo = dict(dataset_meta=nuclei.train_dataloader.dataset.metainfo.to_dict())
    weights = build(nuclei.model).state_dict()
    torch.save(dict(state_dict=weights, meta=metainfo), tmp_path / 'work_dirs' / name / 'iter_1200.pth')
    (tmp_path / 'nuclei.png').symlink_to(tmp_path / 'dsb2018/img_dir/val/0.png')
    exec(snippet, names := {})
    printed = capsys.readouterr().out
    assert 'torch.Size([1, 80, 96])' in printed and 'backbone.stage1.attention1.map (64, 40, 48)' in printed
    panels = saved_figures['attention.png'].axes[1:4]  # after the classes
    for panel, attention in zip(panels, names['result']['attention_on_image'].values(), strict=True):
        image, laid_over = (shown.get_array() for shown in panel.images)
        assert np.array_equal(image, cv2.imread('nuclei.png')[..., ::-1]) and np.allclose(laid_over, attention)
