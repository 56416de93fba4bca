import re

import compare_attention
import numpy as np
import pytest
import query_swap
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from mmresattn.apis import load_classifier
from mmresattn.datasets import ImageArrays
from mmresattn.models.layers import record_attention
from mmresattn.visualization.overlay import resize_map
from tests.conftest import ROOT
from tools.analysis_tools import linear_probe

DIGITS = f'{ROOT}/configs/resattn/attention56_digits.py'
VGG = dict(base='vgg-att', stages=([8], [('max', 2), 8], [('max', 2), 8]), tail=[('max', 2), 8], global_channels=8)


def save(folder, model):
    """Config and checkpoint of an initialised network for digits."""
    config = folder / 'tiny.py'
    fields = ', '.join(f'{key}={value}' for key, value in model.items())
    config.write_text(f"_base_ = '{DIGITS}'\nmodel = dict({fields})\n")
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        built = MODELS.build(Config.fromfile(config).model)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, 0, 0.5)
    torch.save(built.state_dict(), folder / 'tiny.pth')
    return [str(config), str(folder / 'tiny.pth')]


def residual_attention(folder):
    arch = dict(_delete_=True, base='attention56-cifar', channels=(8, 16, 32), poolings=(1, 1, 1), t=1, bottom_units=1)
    return save(folder, dict(backbone=dict(arch=arch), head=dict(in_channels=32)))


def pay_attention(folder, score):
    backbone = dict(_delete_=True, type='PayAttentionNet', arch=VGG, out_indices=(0, 2))
    neck = dict(_delete_=True, type='PayAttention', in_channels=(8, 8, 8), score=score)
    head = dict(_delete_=True, type='PayAttentionHead', num_classes=10, in_channels=(8, 8))
    files = save(folder, dict(backbone=backbone, neck=neck, head=head))
    # An initialised network has nearly the same global vector for every image: here what differs is made large.
    model, loader = load_classifier(*files)
    inputs = model.data_preprocessor({'inputs': next(iter(loader))['inputs']})['inputs']
    linear = next(module for module in model.backbone.to_global if isinstance(module, nn.Linear))
    linear.weight.data *= 500
    linear.bias.data -= model.backbone(inputs)[-1].detach().mean((0, 2, 3))
    torch.save(model.state_dict(), files[1])
    return files


def test_comparison_of_two_networks(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '160')
    configs = [DIGITS, f'{ROOT}/configs/abn/abn-resnet20_cifar100.py']
    argv = [*configs, '--shape', '32', '--batch-size', '2', '--rounds', '1', '--iterations', '1']
    compare_attention.main([*argv, '--out', str(tmp_path / 'a' / 'table.md')])
    title, _, header, rule, *lines = (tmp_path / 'a' / 'table.md').read_text().splitlines()
    assert title.startswith('32x32, 2 images a batch, medians of 1 x 1, ')
    first, second = ([cell.strip() for cell in line.strip('|').split('|')] for line in lines)
    assert first[:3] == ['attention56_digits', '1,030,394', '0.12 G']  # as in the README
    assert first[5] == 'mixed 64x32x32, 128x16x16, 256x8x8'
    assert second[:3] == ['abn-resnet20_cifar100', '501,650', '0.10 G'] and second[5] == 'spatial 1x16x16'
    speeds = np.array([[float(cell.replace(',', '')) for cell in row[3:5]] for row in (first, second)])
    assert (speeds[:, 0] > speeds[:, 1]).all() and speeds.min() > 0  # a step of training holds a forward pass
    out = capsys.readouterr().out
    assert 'abn-resnet20_cifar100' in out and '501,650' in out and 'written to' in out


def test_comparison_counts_maps_of_one_shape(tmp_path):
    config, _ = pay_attention(tmp_path, 'dp')
    main = compare_attention.main
    main([config, '--shape', '16', '--batch-size', '2', '--rounds', '1', '--iterations', '1', '--out',
          str(tmp_path / 'table.md')])  # fmt: skip
    assert (tmp_path / 'table.md').read_text().splitlines()[-1].endswith('| spatial 1x16x16, 1x4x4 |')


def test_every_config_that_is_compared_is_there():
    nets = compare_attention.NETS
    paths = [ROOT / 'configs' / f'{name}.py' for _, names in nets.values() for name in names]
    assert all(path.is_file() for path in paths) and len(set(paths)) == len(paths) > 15


@pytest.fixture
def other_data(tmp_path):
    """Digits upside down as a data set of its own: config and file."""
    digits = load_digits()
    images = (digits.images[::4, ::-1] * 255 / 16).round().astype(np.uint8)
    path = str(tmp_path / 'other.npz')
    np.savez(path, images=images, labels=digits.target[::4], classes=[f'flipped {i}' for i in range(10)])
    config = tmp_path / 'other.py'
    broken = dict(type='ImageArrays', data=path, split='train', pipeline=[dict(type='Broken')])  # is not to be used
    train = dict(_delete_=True, type='RepeatDataset', times=2, dataset=broken)
    config.write_text(
        f"_base_ = '{ROOT}/configs/_base_/datasets/digits_bs32.py'\n"
        f'train_dataloader = dict(dataset={train})\ntest_dataloader = dict(dataset=dict(data={path!r}))\n'
    )
    return str(config), path


def read(out):
    """The numbers of the last line of a table that holds any."""
    line = [line for line in out.splitlines() if '%' in line and '│' in line][-1]
    return [float(number) for number in re.findall(r'[\d.]+', line.replace(',', ''))]


def test_linear_probe(tmp_path, other_data, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '120')
    files = residual_attention(tmp_path)
    main = linear_probe.main
    argv = [*files, '--data', other_data[0], '--resize', '24']
    main([*argv, '--c', '0.1'])
    found = read(capsys.readouterr().out)

    model, _ = load_classifier(*files)  # the same by hand
    sets = []
    for split in ('train', 'test'):
        data = ImageArrays(other_data[1], split)
        images = torch.stack([torch.from_numpy(sample['img']) for sample in data]).permute(0, 3, 1, 2).float()
        images = F.interpolate(images, (16, 16), mode='bilinear')  # the pipeline's, which rounds
        images = F.interpolate(images.round(), (24, 24), mode='bilinear')
        with torch.no_grad():
            features = model.backbone((images - 77.9) / 95.9)[0].mean((2, 3)).numpy()
        sets.append((features, [sample['gt_label'] for sample in data]))
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(*sets[0])
    assert found[:4] == [32, 360, 90, 0.1]
    assert found[4:] == pytest.approx([100 * linear.score(*one) for one in sets], abs=1.2)
    assert found[5] > 50  # chance is 10

    main([*argv, '--c', '0.1', '--features', 'backbone'])  # the one output of the backbone is all there is
    assert read(capsys.readouterr().out) == found
    main([*argv, '--classifier', 'svm', '--max-images', '60'])
    svm = read(capsys.readouterr().out)
    assert svm[:3] == [32, 60, 60] and svm[3] in (0.001, 0.01, 0.1, 1) and svm[4] > 80


def test_query_swap_is_the_softmax_over_the_partners_vector(tmp_path, capsys, saved_figures):
    files = pay_attention(tmp_path, 'dp')
    out = tmp_path / 'swap.png'
    query_swap.main([*files, str(out), '--pairs', '0', '1', '2', '3'])
    printed = capsys.readouterr().out
    assert '2 pairs written' in printed and 'no influence' not in printed
    drawn = [axis.images[1].get_array() for axis in saved_figures['swap.png'].axes if len(axis.images) == 2]

    model, loader = load_classifier(*files)
    images = next(iter(loader))['inputs'][:4]
    inputs = model.data_preprocessor({'inputs': images})['inputs']
    with torch.no_grad(), record_attention(model) as maps:
        with query_swap.swapped_global_vectors(query_swap.find_neck(model), [1, 0, 3, 2]):
            model(inputs)
        *local, g = model.backbone(inputs)
    for level, features in enumerate(local, 1):
        queries = g.flatten(1), g.flatten(1)[[1, 0, 3, 2]]
        own, other = (torch.einsum('nchw,nc->nhw', features, q).flatten(1).softmax(1) for q in queries)
        torch.testing.assert_close(maps[f'neck.level{level}.map'].flatten(1), other)
        expected = (own - other).abs().sum(1) / 2
        assert f'level {level}: {expected.mean():.2%} of the attention moves, {expected.max():.2%} at most' in printed
        assert expected.min() > 0.005
        for attention, image in zip(other, images):  # each of them lies on its image in the figure
            even = attention.view(local[level - 1].shape[2:]) * attention.numel()  # 1: every position alike
            resized = resize_map(even, image.shape[1:])
            assert any(shown.shape == resized.shape and np.allclose(shown, resized, atol=1e-5) for shown in drawn)
    assert not model.neck.to_global._forward_hooks


def test_query_swap_says_that_pc_does_not_depend_on_g(tmp_path, capsys):
    files = pay_attention(tmp_path, 'pc')
    main = query_swap.main
    main([*files, str(tmp_path / 'swap.png'), '--pairs', '0', '1'])
    printed = capsys.readouterr().out
    assert printed.count('0.00% of the attention moves, 0.00% at most') == printed.count('no influence') == 2


def test_query_swap_says_what_is_wrong(tmp_path, capsys):
    main = query_swap.main
    with pytest.raises(ValueError, match='one neck of type PayAttention .*this one has 0'):
        main([*residual_attention(tmp_path), 'swap.png'])
    with pytest.raises(SystemExit):
        main(['config', 'checkpoint', 'swap.png', '--pairs', '1'])
    assert 'two after two' in capsys.readouterr().err
