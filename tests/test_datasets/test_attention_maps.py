import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import MODELS
from mmpretrain.registry import TRANSFORMS as STEPS
from torch.utils.data import DataLoader

from mmresattn.datasets import LoadAttentionMap, SplitAttentionMap
from mmresattn.datasets.attention_maps import read_attention_map
from mmresattn.engine import ReplaySampler
from mmresattn.engine.replay import Draw
from mmresattn.models import attention_branch_network

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


def load(folders):
    return dict(type='LoadAttentionMap', map_root=str(folders / 'maps'), image_root=str(folders / 'images'))


@pytest.mark.parametrize('to_float32', [False, True])
def test_the_map_moves_with_the_pixels_and_the_image_is_as_without_it(folders, to_float32):
    read = [dict(type='ReplaySeed'), dict(type='LoadImageFromFile', to_float32=to_float32)]
    path = str(folders / 'images/cat/a.png')
    images = []
    for epoch in range(8):
        draw = Draw.of(0, 0, epoch)
        packed = run([*read, load(folders), *GEOMETRY, dict(type='SplitAttentionMap'), PACK],
                     img_path=path, sample_idx=draw)  # fmt: skip
        image, sample = packed['inputs'], packed['data_samples']
        assert image.shape == (3, 20, 20) and sample.img_shape == (20, 20)
        assert sample.gt_attention_map.dtype == torch.float32
        torch.testing.assert_close(sample.gt_attention_map * 255, image[0].float(), rtol=0, atol=1e-4)
        plain = run([*read, *GEOMETRY, PACK], img_path=path, sample_idx=draw)
        torch.testing.assert_close(image, plain['inputs'])
        images.append(image)
    assert len({image.numpy().tobytes() for image in images}) == 8


def test_images_without_a_map_keep_no_channel_and_no_field(folders):
    read = [dict(type='LoadImageFromFile'), load(folders), dict(type='SplitAttentionMap'), PACK]
    packed = run(read, img_path=str(folders / 'images/dog/b.png'))
    assert torch.equal(packed['inputs'], torch.from_numpy(pixels()).permute(2, 0, 1))
    assert 'gt_attention_map' not in packed['data_samples']


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
        got = SplitAttentionMap()(LoadAttentionMap(str(tmp_path))(results))['gt_attention_map']
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
        'object.npy': 'no readable .npy file',
        'text.png': 'text.png is no readable image',
        'colour.png': r'shape \(4, 4, 3\); expected \(H, W\): grey',
    }.items():
        with pytest.raises(ValueError, match=message):
            read_attention_map(tmp_path / name)


def test_wrong_folders_are_named(folders):
    with pytest.raises(FileNotFoundError, match='nowhere, which is no folder'):
        LoadAttentionMap(str(folders / 'nowhere'))
    with pytest.raises(ValueError, match='not in the image_root'):
        LoadAttentionMap(str(folders / 'maps'), str(folders / 'images')).find('/else/a.png')
    np.save(folders / 'maps/cat/a.npy', np.zeros((2, 2)))
    with pytest.raises(ValueError, match='two maps, .*a.png and .*a.npy'):
        LoadAttentionMap(str(folders / 'maps'), str(folders / 'images')).find(str(folders / 'images/cat/a.png'))
    with pytest.raises(KeyError, match='Put LoadAttentionMap after'):
        SplitAttentionMap()(dict(img=pixels()))


def batch(folders):
    steps = [dict(type='ReplaySeed'), dict(type='LoadImageFromFile'), load(folders),
             dict(type='RandomCrop', crop_size=32, padding=4), dict(type='SplitAttentionMap'), PACK]  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = CustomDataset(data_root=str(folders / 'images'), pipeline=steps)
    loader = DataLoader(dataset, 2, sampler=ReplaySampler(dataset, shuffle=False, seed=0),
                        collate_fn=lambda samples: {key: [s[key] for s in samples] for key in samples[0]})  # fmt: skip
    return next(iter(loader))


def model(**kwargs):
    backbone = dict(type='CIFARResNet', depth=8, base_channels=4, stem_channels=4, frozen_stages=2)
    network = attention_branch_network(backbone, 2, topk=(1,), map_loss_weight=1.0, **kwargs)
    network['data_preprocessor'] = dict(num_classes=2, mean=[127.0] * 3, std=[60.0] * 3)
    return MODELS.build(network | dict(train_cfg=kwargs and dict(augments=dict(type='Mixup', alpha=1.0))))


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
    with pytest.raises(ValueError, match='Leave mixup and cutmix out of model.train_cfg'):
        network(**data, mode='loss')
    for sample, score in zip(data['data_samples'], torch.eye(2)):
        sample.gt_score = score
    assert network(**data, mode='loss')['map_loss'] > 0
