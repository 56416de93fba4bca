import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import MODELS
from mmpretrain.registry import TRANSFORMS as STEPS
from torch.utils.data import DataLoader

from mmresattn.datasets import LoadAttentionMap
from mmresattn.datasets.attention_maps import _images_of, read_attention_map
from mmresattn.engine import ReplaySampler
from mmresattn.engine.replay import Draw

GEOMETRY = [
    dict(type='RandomResizedCrop', scale=32),
    dict(type='RandomCrop', crop_size=30, padding=4),
    dict(type='RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='Resize', scale=(26, 24)),
    dict(type='CenterCrop', crop_size=20),
]
PACK = dict(type='PackInputs', algorithm_keys=('gt_attention_map',))


def pixels(height=40, width=48):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def run(steps, **results):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for step in steps:
            results = STEPS.build(step)(results)
    return results


@pytest.fixture
def folders(tmp_path):
    """One image whose map is its first channel, blue, and one without a map."""
    for name in ('images/cat', 'images/dog', 'maps/cat'):
        (tmp_path / name).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'images/cat/a.png'), pixels())
    cv2.imwrite(str(tmp_path / 'images/dog/b.png'), pixels())
    cv2.imwrite(str(tmp_path / 'maps/cat/a.png'), pixels()[..., 0])
    return tmp_path


def load(folders, transforms=()):
    return dict(type='LoadAttentionMap', map_root=str(folders / 'maps'), image_root=str(folders / 'images'),
                transforms=list(transforms))  # fmt: skip


@pytest.mark.parametrize('to_float32', [False, True])
def test_the_map_moves_with_the_pixels_and_the_image_is_as_without_it(folders, to_float32):
    read = [dict(type='ReplaySeed'), dict(type='LoadImageFromFile', to_float32=to_float32)]
    path = str(folders / 'images/cat/a.png')
    images = []
    for epoch in range(8):
        draw = Draw.of(0, 0, epoch)
        packed = run([*read, load(folders, GEOMETRY), PACK], img_path=path, sample_idx=draw)
        image, sample = packed['inputs'], packed['data_samples']
        assert image.shape == (3, 20, 20) and sample.img_shape == (20, 20)
        assert sample.gt_attention_map.dtype == torch.float32
        torch.testing.assert_close(sample.gt_attention_map * 255, image[0].float(), rtol=0, atol=1e-4)
        plain = run([*read, *GEOMETRY, PACK], img_path=path, sample_idx=draw)
        assert torch.equal(image, plain['inputs'])
        images.append(image)
    assert len({image.numpy().tobytes() for image in images}) == 8


def torchvision(*steps):
    return [dict(type='NumpyToPIL', to_rgb=True), *steps, dict(type='PILToNumpy', to_bgr=True)]


STEPS_K3_1 = {
    **{f'{kind}-{backend}': [step | dict(backend=backend)] for backend in ('cv2', 'pillow') for kind, step in {
        'RandomResizedCrop': dict(type='RandomResizedCrop', scale=24),
        'ResizeEdge': dict(type='ResizeEdge', scale=24),
        'Resize': dict(type='Resize', scale=(20, 28)),
    }.items()},
    'RandomCrop': [dict(type='RandomCrop', crop_size=44, padding=9, pad_val=(104, 117, 124))],
    'CenterCrop': [dict(type='CenterCrop', crop_size=21)],
    'RandomFlip': [dict(type='RandomFlip', prob=0.5)],
    'Rotate': [dict(type='Rotate', magnitude_range=(10, 30), prob=1.0, pad_val=(104, 117, 124))],
    'torchvision': torchvision(dict(type='torchvision/RandomResizedCrop', size=24),
                               dict(type='torchvision/RandomHorizontalFlip')),
    'RandomApply': [dict(type='RandomApply', transforms=[dict(type='ResizeEdge', scale=24)], prob=0.5)],
}  # fmt: skip


@pytest.mark.parametrize('steps', STEPS_K3_1.values(), ids=STEPS_K3_1)
def test_findings_K3_1_any_backend_moves_the_map_and_leaves_images_alone(folders, steps):
    """The map is the blue channel, so that it must come out as that, 0 where there is a border."""
    for name, has_map in (('cat/a.png', True), ('dog/b.png', False)):
        for epoch in range(4):
            start = dict(img_path=str(folders / 'images' / name), sample_idx=Draw.of(0, 0, epoch))
            read = [dict(type='ReplaySeed'), dict(type='LoadImageFromFile')]
            results = run([*read, load(folders, steps)], **start)
            draw_after = np.random.rand(), torch.rand(1).item()
            plain = run([*read, *steps], **start)
            assert results['img'].dtype == np.uint8 and np.array_equal(results['img'], plain['img'])
            assert draw_after == (np.random.rand(), torch.rand(1).item())
            assert ('gt_attention_map' in results) == has_map
            if has_map:
                blue = torch.from_numpy(plain['img'][..., 0].astype(np.float32)) / 255
                found = results['gt_attention_map']
                border = torch.from_numpy((plain['img'] == (104, 117, 124)).all(2))
                assert border.any() == (steps[0]['type'] in ('RandomCrop', 'Rotate'))
                torch.testing.assert_close(found, blue.masked_fill(border, 0), rtol=0, atol=1e-6)


def test_findings_K3_1_steps_that_change_colours_are_refused(folders):
    either = dict(type='RandomChoice', transforms=[[dict(type='RandomFlip')], [dict(type='Equalize')]])
    for step in (dict(type='ColorJitter'), dict(type='torchvision/ColorJitter'), dict(type='RandAugment'), either):
        with pytest.raises(ValueError, match=f'cannot move a map by {step["type"]}'):
            run([load(folders, [step])])


def test_findings_K3_2_two_images_never_take_one_map(folders):
    cv2.imwrite(str(folders / 'images/cat/a.jpg'), pixels())
    _images_of.cache_clear()
    load_map = LoadAttentionMap(str(folders / 'maps'), str(folders / 'images'))
    for name in ('a.jpg', 'a.png'):
        with pytest.raises(ValueError, match='map of a.jpg and of a.png'):
            load_map.find(str(folders / 'images/cat' / name))
    (folders / 'maps/cat/a.png').rename(folders / 'maps/cat/a.jpg.png')
    assert load_map.find(str(folders / 'images/cat/a.jpg')) == folders / 'maps/cat/a.jpg.png'
    assert load_map.find(str(folders / 'images/cat/a.png')) is None
    flat = LoadAttentionMap(str(folders / 'maps/cat'))
    flat.find('/one/a.jpg')
    with pytest.raises(ValueError, match='/one/a.jpg and /two/a.jpg have the same map'):
        flat.find('/two/a.jpg')


def test_maps_of_any_kind_and_size(tmp_path):
    small = np.array([[0, 0.25], [0.5, 1]])
    cv2.imwrite(str(tmp_path / 'a.png'), (small * 255).round().astype(np.uint8))
    cv2.imwrite(str(tmp_path / 'b.png'), (small * 65535).round().astype(np.uint16))
    np.save(tmp_path / 'c.npy', small)
    for name, step in (('a.png', 1 / 255), ('b.png', 1 / 65535), ('c.npy', 1e-7)):
        attention = read_attention_map(tmp_path / name)
        assert attention.dtype == np.float32 and np.abs(attention - small).max() <= step / 2 + 1e-7
        # Found by the name of the image alone. Bilinear, with half a pixel at the borders, as torch does it.
        results = dict(img=np.zeros((6, 8, 3), np.float32), img_path=f'/else/where/{name[0]}.jpg')
        got = LoadAttentionMap(str(tmp_path))(results)['gt_attention_map']
        expected = torch.nn.functional.interpolate(torch.from_numpy(attention)[None, None], (6, 8), mode='bilinear')
        torch.testing.assert_close(got, expected[0, 0], rtol=0, atol=1e-6)


def test_what_is_no_map_is_named(tmp_path):
    np.save(tmp_path / 'large.npy', np.full((2, 2), 1.5))
    np.save(tmp_path / 'nan.npy', np.full((2, 2), np.nan))
    np.save(tmp_path / 'deep.npy', np.zeros((1, 2, 2)))
    np.save(tmp_path / 'object.npy', np.array([{}]), allow_pickle=True)
    (tmp_path / 'text.png').write_text('no image')
    cv2.imwrite(str(tmp_path / 'colour.png'), pixels(4, 4))
    for name, message in {
        'large.npy': r'values from 1.5 to 1.5; expected \[0, 1\]',
        'nan.npy': 'values from nan',
        'deep.npy': r'shape \(1, 2, 2\); expected \(H, W\)',
        'object.npy': 'not a readable .npy file',
        'text.png': 'text.png is not a readable image',
        'colour.png': r'shape \(4, 4, 3\); expected \(H, W\): grey',
    }.items():
        with pytest.raises(ValueError, match=message):
            read_attention_map(tmp_path / name)


def test_wrong_folders_are_named(folders):
    with pytest.raises(FileNotFoundError, match='nowhere, which is not a folder'):
        LoadAttentionMap(str(folders / 'nowhere'))
    with pytest.raises(ValueError, match='not in the image_root'):
        LoadAttentionMap(str(folders / 'maps'), str(folders / 'images')).find('/else/a.png')
    np.save(folders / 'maps/cat/a.npy', np.zeros((2, 2)))
    with pytest.raises(ValueError, match='two maps, .*a.png and .*a.npy'):
        LoadAttentionMap(str(folders / 'maps'), str(folders / 'images')).find(str(folders / 'images/cat/a.png'))


def batch(folders):
    steps = [dict(type='ReplaySeed'), dict(type='LoadImageFromFile'),
             load(folders, [dict(type='RandomCrop', crop_size=32, padding=4)]), PACK]  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = CustomDataset(data_root=str(folders / 'images'), pipeline=steps)
    loader = DataLoader(dataset, 2, sampler=ReplaySampler(dataset, shuffle=False, seed=0),
                        collate_fn=lambda samples: {key: [s[key] for s in samples] for key in samples[0]})  # fmt: skip
    return next(iter(loader))


def model(**kwargs):
    backbone = dict(type='CIFARResNet', depth=8, base_channels=4, stem_channels=4, frozen_stages=2)
    network = dict(
        type='AttentionBranchNetwork',
        backbone=backbone,
        head=dict(type='AttentionBranchHead', num_classes=2, map_loss=dict(type='AttentionMapLoss'), **kwargs),
        data_preprocessor=dict(num_classes=2, mean=[127.0] * 3, std=[60.0] * 3),
        train_cfg=kwargs and dict(augments=dict(type='Mixup', alpha=1.0)),
    )
    return MODELS.build(network)


def test_maps_reach_the_loss_and_train_both_branches_alone(folders):
    torch.manual_seed(0)
    network = model().train()
    data = network.data_preprocessor(batch(folders), training=True)
    feats = network.extract_feat(data['inputs'])
    losses = network.head.loss(feats, data['data_samples'])
    target = data['data_samples'][0].gt_attention_map
    assert target.shape == (32, 32) and 'gt_attention_map' not in data['data_samples'][1]
    target = torch.nn.functional.interpolate(target[None, None], (16, 16), mode='bilinear')
    torch.testing.assert_close(losses['map_loss'], (target[0, 0] - feats[2][0, 0]).norm() / 2)
    network.parse_losses(losses)[0].backward()
    trained = {name.split('.')[0] for name, p in network.named_parameters() if p.grad is not None}
    assert trained == {'neck', 'head'}


def test_mixup_of_images_with_maps_is_refused(folders):
    network = model(loss=dict(type='CrossEntropyLoss', use_soft=True)).train()
    data = network.data_preprocessor(batch(folders), training=True)
    data['data_samples'][0].gt_score = torch.tensor([0.6, 0.4])  # whatever was drawn
    with pytest.raises(ValueError, match='Remove mixup and cutmix from model.train_cfg'):
        network(**data, mode='loss')
    for sample, score in zip(data['data_samples'], torch.eye(2)):
        sample.gt_score = score
    assert network(**data, mode='loss')['map_loss'] > 0
