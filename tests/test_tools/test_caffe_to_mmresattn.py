"""The converter against the official graph, written down a second time on the blobs themselves."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS

import mmresattn  # noqa: F401  (registers the backbone)
from tools.model_converters import caffe_to_mmresattn as tool

LAYERS = {'attention56': 218, 'attention92': 356, 'attentionnext56': 218, 'attentionnext92': 353}  # with parameters


class OfficialNetwork:
    """The graph of the official prototxt, of torch's functions alone.

    Blobs that are not there yet are drawn. Those of a BN lie around the statistics of its input, so that no activation
    dies or explodes and no mask saturates; a difference anywhere then reaches the logits.
    """

    def __init__(self, arch, dtype):
        self.next = 'next' in arch
        self.modules = (1, 2, 3) if '92' in arch else (1, 1, 1)
        self.dtype = dtype
        self.blobs = {}
        self.generator = torch.Generator().manual_seed(0)

    def randn(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=self.dtype)

    def blob(self, name, draw):
        if name not in self.blobs:
            self.blobs[name] = draw().numpy()
        return torch.from_numpy(self.blobs[name])

    def conv(self, x, layer, channels, kernel=1, stride=1, groups=1):
        shape = (channels, x.shape[1] // groups, kernel, kernel)
        weight = self.blob(f'{layer}.0', lambda: self.randn(*shape) * math.sqrt(2 / math.prod(shape[1:])))
        return F.conv2d(x, weight, None, stride, kernel // 2, groups=groups)

    def bn(self, x, blob, relu=True):
        """The layer `<blob>/bn` and, in place of its output, a ReLU."""
        shape = (1, x.shape[1], 1, 1)
        mean, std = x.mean((0, 2, 3)).view(shape), x.var((0, 2, 3)).mean().sqrt()
        slope = self.blob(f'{blob}/bn.0', lambda: 1 + 0.2 * self.randn(*shape))
        bias = self.blob(f'{blob}/bn.1', lambda: 0.2 * self.randn(*shape))
        mean = self.blob(f'{blob}/bn.2', lambda: mean + 0.3 * std * self.randn(*shape))
        inverse_std = self.blob(f'{blob}/bn.3', lambda: (0.3 * self.randn(*shape)).exp() / std)
        x = (x - mean) * inverse_std * slope + bias
        return x.relu() if relu else x

    def pool(self, x):
        """3x3, stride 2, no padding; the number of windows is rounded up and the last ones are cut."""
        missing = [(math.ceil((side - 3) / 2)) * 2 + 3 - side for side in x.shape[2:]]
        return F.max_pool2d(F.pad(x, (0, missing[1], 0, missing[0]), value=-math.inf), 3, 2)

    def unit(self, x, bottom, name, width, stride=1, projection=False):
        """`x` is the blob `bottom`; the result is the blob `name`."""
        if self.next:
            h = self.bn(self.conv(x, f'{name}/branch1/conv1_1x1', width // 2), f'{name}/branch1/conv1_1x1')
            h = self.conv(h, f'{name}/branch1/conv2_3x3', width // 2, 3, stride, 32)
            h = self.bn(h, f'{name}/branch1/conv2_3x3')
            h = self.bn(self.conv(h, f'{name}/branch1/conv3_1x1', width), f'{name}/branch1/conv3_1x1', relu=False)
            if projection:
                x = self.conv(x, f'{name}/branch2/conv1_1x1', width, stride=stride)
                x = self.bn(x, f'{name}/branch2/conv1_1x1', relu=False)
            return (h + x).relu()
        activated = self.bn(x, bottom)
        h = self.conv(activated, f'{name}/branch1/conv1_1x1', width // 4)
        h = self.conv(self.bn(h, f'{name}/branch1/conv1_1x1'), f'{name}/branch1/conv2_3x3', width // 4, 3, stride)
        h = self.conv(self.bn(h, f'{name}/branch1/conv2_3x3'), f'{name}/branch1/conv3_1x1', width)
        return h + (self.conv(activated, f'{name}/branch2/conv1_1x1', width, stride=stride) if projection else x)

    def attention(self, x, bottom, name, width, depth):
        down, up = (f'{name}/mask/{way}{"" if self.next else "_sample"}' for way in ('down', 'up'))

        def interp(x, like):
            return F.interpolate(x, like.shape[2:], mode='bilinear', align_corners=True)

        res1 = self.unit(x, bottom, f'{name}/trunk/res1', width)
        trunk = self.unit(res1, f'{name}/trunk/res1', f'{name}/trunk/res2', width)
        trunk = self.unit(trunk, f'{name}/trunk/res2', f'{name}/trunk/res3', width)

        x, downs = res1, {}
        for level in range(1, depth + 1):
            x = downs[level] = self.unit(self.pool(x), f'{down}/pool{level}_3x3_s2', f'{down}/res{level}_1', width)
        x = self.unit(x, f'{down}/res{depth}_1', f'{down}/res{depth}_2', width)
        for level in range(depth - 1, 0, -1):
            skip = self.unit(downs[level], f'{down}/res{level}_1', f'{name}/mask/skip/res{level}', width)
            x = self.unit(interp(x, skip) + skip, f'{up}{level}', f'{up}/res{level}_1', width)
        x = interp(x, trunk)
        if not self.next:
            x = self.bn(x, f'{up}/interp_1')
        x = self.bn(self.conv(x, f'{name}/mask/linear_1', width), f'{name}/mask/linear_1')
        mask = self.conv(x, f'{name}/mask/linear_2', width).sigmoid()
        assert 0.1 < mask.std() < 0.3  # neither constant nor saturated, or this would be a weak test of the mask
        return self.unit(mask * trunk + trunk, f'{name}/fusion', name, width)

    def __call__(self, x):
        """Logits (N, 1000) of images (N, 3, H, W)."""
        x = self.pool(self.bn(self.conv(x, 'conv1', 64, 7, 2), 'conv1'))
        bottom = 'pool1_3x3_s2'
        for i, (modules, width) in enumerate(zip(self.modules, (256, 512, 1024), strict=True)):
            x = self.unit(x, bottom, f'pre_res_{i + 1}', width, stride=min(i + 1, 2), projection=True)
            bottom = f'pre_res_{i + 1}'
            for k in range(modules):
                name = f'Attention{"ABC"[i]}_{k + 1}'
                x = self.attention(x, bottom, name, width, depth=3 - i)
                bottom = name
        for k in range(3):
            x = self.unit(x, bottom, f'post_res_4_{k + 1}', 2048, stride=1 if k else 2, projection=not k)
            bottom = f'post_res_4_{k + 1}'
        x = (x if self.next else self.bn(x, bottom)).mean((2, 3))  # the 7x7 window covers the whole map at 224x224
        weight = self.blob('classifier.0', lambda: self.randn(1, 1, 1000, 2048) / math.sqrt(2048))
        bias = self.blob('classifier.1', lambda: self.randn(1, 1, 1, 1000))
        return x @ weight[0, 0].T + bias[0, 0]


@torch.no_grad()
def official(arch, dtype):
    """Images, random blobs and their logits."""
    network = OfficialNetwork(arch, dtype)
    images = network.randn(2, 3, 64, 80)  # maps of even and odd sides
    return images, network.blobs, network(images)


def classifier(arch):
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ResidualAttentionNet', arch=arch),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=1000, in_channels=2048),
        )
    ).eval()


@torch.no_grad()
def assert_same_logits(model, images, expected, tolerance):
    difference = (model(images, mode='tensor') - expected).abs().max() / expected.abs().max()
    print(f'{expected.dtype}: logits differ by {difference:.1e} of the largest')
    assert difference < tolerance


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """Many small convolutions are slower, by far, with threads that wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def attention56():
    return official('attention56', torch.float32)


@pytest.mark.parametrize('arch', LAYERS)
def test_official_graph(arch):
    images, blobs, logits = official(arch, torch.float64)
    assert len(tool.layer_table(arch)) == LAYERS[arch]
    model = classifier(arch).double()
    model.load_state_dict(tool.convert(blobs, arch), strict=True)
    assert_same_logits(model, images, logits, 1e-11)
    assert (logits[0] - logits[1]).std() > 0.05  # the logits depend on the image


def test_variance(attention56):
    state = tool.convert(attention56[1], 'attention56')
    blob = torch.from_numpy(attention56[1]['conv1/bn.3']).flatten()
    torch.testing.assert_close(1 / (state['backbone.stem.1.0.running_var'] + 1e-5).sqrt(), blob, rtol=1e-6, atol=0)
    # A channel that was always constant has the inverse standard deviation 1 / sqrt(eps).
    dead = np.full((1, 64, 1, 1), 1e-5**-0.5, np.float32)
    state = tool.convert({**attention56[1], 'conv1/bn.3': dead}, 'attention56')
    assert state['backbone.stem.1.0.running_var'].abs().max() < 1e-11


def test_all_wrong_blobs_are_named(attention56):
    blobs = dict(attention56[1])
    del blobs['AttentionB_1/mask/linear_2.0']
    blobs['fc8.0'] = np.zeros(3, np.float32)
    blobs['conv1.0'] = blobs['conv1.0'].transpose(1, 0, 2, 3)
    blobs['conv1/bn.0'] = np.ones(64, int)
    blobs['conv1/bn.3'] = -blobs['conv1/bn.3']
    with pytest.raises(ValueError) as error:
        tool.convert(blobs, 'attention56')
    assert str(error.value).splitlines()[1:] == [
        '1 missing: AttentionB_1/mask/linear_2.0',
        '1 unknown: fc8.0',
        '3 unfit: conv1.0 of shape (3, 64, 7, 7), not (64, 3, 7, 7), conv1/bn.0 of type int64, not float32 or float64, '
        'conv1/bn.3, inverse standard deviations that are not all positive',
    ]


def test_long_lists_are_cut(attention56):
    with pytest.raises(ValueError, match=r'540 missing: conv1\.0, .* and 532 more$'):
        tool.convert({}, 'attention56')
    with pytest.raises(ValueError, match=r'(?s)attention92.*345 missing: AttentionB_2/.* and 337 more$'):
        tool.convert(attention56[1], 'attention92')
    with pytest.raises(ValueError, match='(?s)missing: .*unknown: '):
        tool.convert(attention56[1], 'attentionnext56')


def test_unknown_arch():
    for arch in ('attention236-cifar', 'resnet50'):
        with pytest.raises(ValueError, match=f"official networks for .*attentionnext92.*, not for '{arch}'"):
            tool.convert({}, arch)


def test_command_line(attention56, tmp_path, capsys):
    images, blobs, logits = attention56
    src, dst = tmp_path / 'blobs.npz', tmp_path / 'attention56.pth'
    np.savez(src, **blobs)
    tool.main([str(src), str(dst), '--arch', 'attention56'])
    src.unlink()
    checkpoint = torch.load(dst, weights_only=True)
    dst.unlink()  # pytest keeps its folders, and these files are large
    assert capsys.readouterr().out == f'attention56: 540 blobs, 31,810,728 parameters, written to {dst}\n'
    assert checkpoint['meta'] == {'arch': 'attention56'}
    model = classifier('attention56')
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    assert_same_logits(model, images, logits, 1e-4)


@pytest.mark.parametrize(
    'src, dst, arch, message',
    [
        ('one.npz', 'a.pth', 'attention56', '539 missing'),
        ('one.npz', 'a.pth', 'resnet50', 'invalid choice'),
        ('one.npz', '.', 'attention56', 'is a folder'),
        ('one.npz', 'nowhere/a.pth', 'attention56', 'There is no folder'),
        ('one.npz', 'text.npz/a.pth', 'attention56', 'There is no folder'),
        ('nothing.npz', 'a.pth', 'attention56', 'No such file'),
        ('text.npz', 'a.pth', 'attention56', 'text.npz is no .npz file'),
        ('array.npy', 'a.pth', 'attention56', 'array.npy is no .npz file'),
        ('cut.npz', 'a.pth', 'attention56', 'cut.npz is no .npz file'),
        ('flipped.npz', 'a.pth', 'attention56', 'no readable .npz file: Bad CRC'),
        ('pickled.npz', 'a.pth', 'attention56', 'no readable .npz file: Object arrays cannot be loaded'),
    ],
)
def test_command_line_errors(src, dst, arch, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez('one.npz', **{'conv1.0': np.ones((64, 3, 7, 7), np.float32)})
    content = Path('one.npz').read_bytes()
    Path('cut.npz').write_bytes(content[:-100])
    Path('flipped.npz').write_bytes(content[:20000] + bytes([content[20000] ^ 1]) + content[20001:])
    Path('text.npz').write_text('no blobs')
    np.save('array.npy', np.ones(3))
    np.savez('pickled.npz', **{'conv1.0': np.array([print], dtype=object)})
    with pytest.raises(SystemExit) as error:
        tool.main([src, dst, '--arch', arch])
    assert error.value.code == 2 and message in capsys.readouterr().err
    assert not Path('a.pth').exists()
