"""Faults of the loading of weights that real use found; ids are rows of the list of faults."""

import hashlib
import http.server
import os
import stat
import threading
import zipfile
from functools import partial

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from safetensors.torch import save_file
from torch import nn

from mmresattn.apis import AttentionInferencer, latest_checkpoint, load_classifier
from mmresattn.engine import LoadWeightsHook
from mmresattn.weights import (
    CheckpointError,
    DamagedCheckpoint,
    UnsafeCheckpoint,
    differing_tensors,
    load_weights,
    lock_work_dir,
    read_checkpoint,
    record,
    write_whole,
)
from mmresattn.weights.loader import METADATA
from tests.conftest import ROOT
from tools.model_converters import publish_weights

TRUSTED = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


class Touch:
    """A pickle that makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mknod, (self.path,)


class Net(BaseModel):
    class_weights = ('head',)

    def __init__(self, classes=3, width=4, optimizer=None):
        super().__init__()
        self.body = nn.Linear(2, width)
        self.head = nn.Linear(width, classes)

    def forward(self, inputs, mode='tensor'):
        scores = self.head(self.body(inputs))
        return dict(loss=scores.square().mean()) if mode == 'loss' else [scores]


def runner(work_dir, epochs=1, optimizer='SGD', hooks=(), model=None, **settings):
    torch.manual_seed(0)
    return Runner(
        model or Net(),
        str(work_dir),
        train_dataloader=dict(
            batch_size=2,
            dataset=[torch.ones(2) * i for i in range(4)],
            sampler=dict(type='DefaultSampler', shuffle=False),
            num_workers=0,
            collate_fn=lambda images: dict(inputs=torch.stack(images)),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type=optimizer, lr=1e-3)),
        default_hooks=dict(checkpoint=dict(type='WholeCheckpointHook', interval=1), logger=None),
        custom_hooks=[LoadWeightsHook(), *hooks],
        experiment_name=f'{work_dir}{epochs}{settings}'.replace('/', '_'),
        log_level='ERROR',
        **settings,
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A checkpoint of a training."""
    folder = tmp_path_factory.mktemp('trained')
    runner(folder).train()
    return folder / 'epoch_1.pth'


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    """A folder, and its address on the loopback."""
    folder = tmp_path_factory.mktemp('served')
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *args: None
    http.server.SimpleHTTPRequestHandler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """The config of a small classifier."""
    path = tmp_path_factory.mktemp('tiny') / 'tiny.py'
    path.write_text(
        f"_base_ = '{ROOT}/configs/resattn/attention56_digits.py'\n"
        "arch = dict(_delete_=True, base='attention56-cifar', channels=(8, 8, 8), stem_channels=8)\n"
        'model = dict(backbone=dict(arch=arch), head=dict(in_channels=8))\n'
        'test_dataloader = dict(dataset=dict(indices=4))\n'
    )
    return path


def build(config):
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
        return MODELS.build(cfg.model)


ROADS = ('path', 'home', 'http', 'torchvision', 'modelzoo', 'open-mmlab', 'open-mmlab file', 'mmcls', 'mmresattn')


def address(road, folder, url, monkeypatch):
    """The address of hostile.pth by a road."""
    monkeypatch.setenv('TORCH_HOME', str(folder / 'cache'))
    monkeypatch.setenv('HOME', str(folder))
    monkeypatch.setenv('MMENGINE_HOME', str(folder))
    monkeypatch.setenv('MMRESATTN_WEIGHTS', str(folder))
    remote = f'{url}/hostile.pth'
    tables = dict(get_torchvision_models=dict(evil=remote), get_mmcls_models=dict(evil=remote),
                  get_external_models=dict(evil=remote, file='hostile.pth'))  # fmt: skip
    for name, table in tables.items():
        monkeypatch.setattr(mmengine_checkpoint, name, lambda table=table: table)
    return {
        'path': str(folder / 'hostile.pth'),
        'home': '~/hostile.pth',
        'http': remote,
        'open-mmlab file': 'open-mmlab://file',
        'mmresattn': 'mmresattn://hostile.pth',
    }.get(road, f'{road}://evil')


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('road', ROADS)
def test_K1_1_hostile_files_are_refused_by_every_road_unless_trusted(served, tmp_path, monkeypatch, road, zipped):
    folder, url = served
    mark = tmp_path / 'mark'
    content = {'state_dict': {'backbone.body.weight': torch.rand(4, 2)}, 'more': Touch(mark)}
    torch.save(content, folder / 'hostile.pth', _use_new_zipfile_serialization=zipped)
    where = address(road, folder, url, monkeypatch)
    for read in (read_checkpoint, mmengine_checkpoint._load_checkpoint, partial(load_checkpoint, Net())):
        with pytest.raises(UnsafeCheckpoint, match=r'hostile.pth \([\d,]+ bytes\) was refused.*Nothing in it was run'):
            read(where)
    pretrained = dict(type='Pretrained', checkpoint=where)
    with pytest.raises(UnsafeCheckpoint):
        mmengine.model.initialize(Net(), pretrained)
    assert not mark.exists()
    monkeypatch.setenv(TRUSTED, '1')
    read_checkpoint(where)
    assert mark.exists()
    (folder / 'cache/hub/checkpoints/hostile.pth').unlink(missing_ok=True)


@pytest.mark.parametrize('door', ['load_classifier', 'inferencer', 'load_from', 'publish'])
def test_K1_1_through_every_door(served, tiny, tmp_path, monkeypatch, door):
    folder, url = served
    mark = tmp_path / 'mark'
    torch.save({'state_dict': {}, 'more': Touch(mark)}, folder / 'hostile.pth')
    where = address('http', folder, url, monkeypatch)
    doors = dict(
        load_classifier=lambda: load_classifier(str(tiny), where),
        inferencer=lambda: AttentionInferencer(str(tiny), pretrained=where),
        load_from=lambda: runner(tmp_path, load_from=where).train(),
        publish=lambda: publish_weights.main([str(tiny), where, str(tmp_path / 'out.safetensors')]),
    )
    with pytest.raises(UnsafeCheckpoint):
        doors[door]()
    assert not mark.exists()


class Backbone(BaseModule):
    def __init__(self, width=4, init_cfg=None):
        super().__init__(init_cfg)
        self.stem = nn.Conv2d(3, width, 3)
        self.stage = nn.Conv2d(width, width, 3)


@pytest.mark.parametrize(
    ('width', 'prefix', 'message'),
    [
        (8, 'backbone.', r'does not fit this Backbone: .* of another shape \(stem.weight \(4, 3, 3, 3\) for'),
        (4, None, r"does not fit this Backbone: .*They are under 'backbone.' in the file: set prefix='backbone.'"),
        (4, 'trunk.', r"has no weights under 'trunk.'. They are under 'backbone.'"),
        (4, 'backbone', None),
    ],
)
def test_K1_2_pretrained_of_another_net_or_prefix_is_an_error(tmp_path, width, prefix, message):
    saved = nn.ModuleDict(dict(backbone=Backbone(), head=nn.Linear(4, 2)))
    path = str(tmp_path / 'net.pth')
    torch.save(saved.state_dict(), path)
    net = Backbone(width, dict(type='Pretrained', checkpoint=path, prefix=prefix))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    if message is None:
        net.init_weights()
        assert not differing_tensors(net.state_dict(), saved['backbone'].state_dict())
    else:
        with pytest.raises(CheckpointError, match=message):
            net.init_weights()
        assert not differing_tensors(net.state_dict(), before)


def test_pretrained_leaves_a_new_part_as_it_is_and_says_so(tmp_path, monkeypatch):
    """As MMEngine's own does: a network with one more child, here a classifier, starts from a file without it."""
    path = str(tmp_path / 'net.pth')
    torch.save(Backbone().state_dict(), path)
    net = Backbone(init_cfg=dict(type='Pretrained', checkpoint=path))
    net.classifier = nn.Linear(4, 2)
    before = net.classifier.weight.detach().clone()
    logged = []
    monkeypatch.setattr('mmresattn.weights.fitting.print_log', lambda text, **kwargs: logged.append(text))
    net.init_weights()
    assert torch.equal(net.classifier.weight, before)
    assert torch.equal(net.stem.weight, torch.load(path)['stem.weight'])
    assert logged == [f'Not from {path}, but freshly initialised: classifier.']


@pytest.mark.parametrize('change', ['missing', 'shape', 'NaN', 'layers'])
def test_K1_3_a_refused_checkpoint_leaves_the_model_as_it_was(change):
    torch.manual_seed(0)
    model, given = Net(), Net().state_dict()
    meta = {}
    if change == 'missing':
        del given['head.bias']
    elif change == 'shape':
        given['head.weight'] = torch.rand(3, 5)
    elif change == 'NaN':
        given['head.bias'][0] = torch.nan
    else:
        model.conv = nn.Conv2d(2, 2, 3, stride=2)
        given = {**given, **{f'conv.{name}': value + 1 for name, value in model.conv.state_dict().items()}}
        meta = dict(mmresattn=dict(layers={}))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_weights(model, dict(state_dict=given, meta=meta), 'x.pth')
    assert not differing_tensors(model.state_dict(), before)


RESNET20 = dict(type='CIFARResNet', depth=20)
ABN_NEW = {'neck.class_maps', 'neck.class_scores', 'neck.attention', 'head.fc'}


def head(kind, classes, **kwargs):
    return dict(type=kind, num_classes=classes, in_channels=8, **kwargs)


def classifier(**parts):
    backbone = dict(
        type='ResidualAttentionNet', arch=dict(base='attention56-cifar', channels=(8, 8, 8), stem_channels=8)
    )
    return dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), **parts)


CLASSIFIERS = {
    'abn': (
        lambda n: dict(
            type='AttentionBranchNetwork',
            backbone=RESNET20,
            head=dict(type='AttentionBranchHead', num_classes=n),
        ),
        ABN_NEW,
    ),
    'multi-task abn': (
        lambda n: dict(
            type='AttentionBranchNetwork',
            backbone=RESNET20,
            neck=dict(type='MultiTaskAttentionBranchNeck'),
            head=dict(type='MultiTaskAttentionBranchHead', num_classes=n),
        ),
        {'neck.attention', 'head.fc'},
    ),
    'linear': (lambda n: classifier(head=head('LinearClsHead', n)), {'head.fc'}),
    'stacked': (
        lambda n: classifier(head=head('StackedLinearClsHead', n, mid_channels=[6], norm_cfg=dict(type='BN1d'))),
        {'head.layers.1'},
    ),
    'multi-label': (lambda n: classifier(head=head('MultiLabelLinearClsHead', n)), {'head.fc'}),
    'csra': (
        lambda n: dict(classifier(head=head('CSRAClsHead', n, num_heads=1, lam=0.1)), neck=None),
        {'head.csra_heads'},
    ),
    'arcface': (lambda n: classifier(head=head('ArcFaceClsHead', n)), {'head.norm_product'}),
    'vit': (
        lambda n: dict(
            type='ImageClassifier',
            backbone=dict(type='VisionTransformer', arch=dict(embed_dims=8, num_layers=1, num_heads=2,
                          feedforward_channels=8), img_size=32, patch_size=16),
            head=dict(type='VisionTransformerClsHead', num_classes=n, in_channels=8, hidden_dim=6),
        ),
        {'head.layers.head'},
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_K1_4_exactly_the_class_weights_may_be_new(name, monkeypatch):
    config, new = CLASSIFIERS[name]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        ten, five = (MODELS.build(dict(config(classes))) for classes in (10, 5))
    given = ten.state_dict()
    for value in given.values():
        value.copy_(torch.rand(value.shape)) if value.is_floating_point() else value.fill_(3)
    with pytest.raises(CheckpointError, match='of another shape'):
        load_weights(five, given, 'ten.pth')
    logged = []
    monkeypatch.setattr('mmresattn.weights.fitting.print_log', lambda text, **kwargs: logged.append(text))
    before = {key: value.clone() for key, value in five.state_dict().items()}
    load_weights(five, given, 'ten.pth', fine_tune=True)
    same = {key for key, value in five.state_dict().items() if torch.equal(value, before[key])}
    assert logged and set(logged[0].partition('initialised: ')[2].removesuffix('.').split(', ')) == new
    for key, value in five.state_dict().items():
        fresh = any(key.startswith(f'{part}.') for part in new)
        assert key in same if fresh else torch.equal(value, given[key])
    # Nothing else of a head or neck may be missing.
    other = next(key for key in given if not any(key.startswith(f'{part}.') for part in new))
    del given[other]
    with pytest.raises(CheckpointError, match='1 not in the file'):
        load_weights(five, given, 'ten.pth', fine_tune=True)


@pytest.mark.parametrize('attention', ['SqueezeExcitation', 'NonLocalAttention'])
def test_K1_5_new_attention_in_a_known_backbone_starts_fresh(attention, monkeypatch):
    plain, with_attention = (
        MODELS.build(dict(type='AttentionResNet', depth=18, base_channels=8, stem_channels=8, expansion=1, **fields))
        for fields in ({}, dict(attention=dict(type=attention, stages=(False, False, [-1], False))))
    )
    given = {key: torch.rand(value.shape) for key, value in plain.state_dict().items()}
    with pytest.raises(CheckpointError, match='not in the file'):
        load_weights(with_attention, given, 'plain.pth')
    logged = []
    monkeypatch.setattr('mmresattn.weights.fitting.print_log', lambda text, **kwargs: logged.append(text))
    load_weights(with_attention, given, 'plain.pth', fine_tune=True)
    name = dict(SqueezeExcitation='se_layer', NonLocalAttention='nonlocal_block')[attention]
    assert [f'layer3.1.{name}' in text for text in logged] == [True]
    loaded = with_attention.state_dict()
    assert all(torch.equal(loaded[key], value.to(loaded[key].dtype)) for key, value in given.items())


def test_K1_6_K6_3_published_weights_say_what_they_are_for(tiny, tmp_path, capsys):
    model = build(tiny)
    classes = [f'digit {i}' for i in range(10)]
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=classes))), tmp_path / 'a.pth')
    digests = set()
    for name in ('a.safetensors', 'b.safetensors'):
        publish_weights.main([str(tiny), str(tmp_path / 'a.pth'), str(tmp_path / name), '--input-size', '28', '30'])
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask()
    assert len(digests) == 1 and digests.pop() in capsys.readouterr().out  # K6: it was another at every call
    meta = read_checkpoint(tmp_path / 'a.safetensors')['meta']
    assert meta['dataset_meta']['classes'] == classes
    assert meta['mmresattn']['input_size'] == [28, 30] and meta['mmresattn']['config'] == 'tiny.py'
    preprocessor = model.data_preprocessor
    assert meta['mmresattn']['preprocessing'] == dict(
        mean=pytest.approx(preprocessor.mean.flatten().tolist()),
        std=pytest.approx(preprocessor.std.flatten().tolist()),
        to_rgb=False,
    )
    restored, _ = load_classifier(str(tiny), str(tmp_path / 'a.safetensors'))
    assert restored._dataset_meta['classes'] == classes and restored._trained_for['input_size'] == [28, 30]
    inferencer = AttentionInferencer(str(tiny), pretrained=str(tmp_path / 'a.safetensors'))
    answer = inferencer(np.zeros((8, 8, 3), np.uint8))[0]
    assert answer['pred_class'] == classes[answer['pred_label']]
    # Another normalisation is another network.
    cfg = Config.fromfile(tiny)
    cfg.data_preprocessor = dict(cfg.data_preprocessor, mean=[1.0] * len(cfg.data_preprocessor.mean))
    with pytest.raises(CheckpointError, match='images are normalised by'):
        AttentionInferencer(cfg, pretrained=str(tmp_path / 'a.safetensors'))


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_K1_6_weights_of_the_repository_name_their_classes():
    meta = read_checkpoint('mmresattn://attention56_cifar10_fast.safetensors')['meta']
    assert (
        meta['dataset_meta']['classes'][:2] == ['airplane', 'automobile'] and len(meta['dataset_meta']['classes']) == 10
    )
    assert meta['mmresattn']['input_size'] == [32, 32]


@pytest.mark.parametrize('content', ['[1]', '{', '{"dataset_meta": 3}', '[' * 100_000])
def test_K1_6_foreign_metadata_does_no_harm(tmp_path, content):
    save_file(Net().state_dict(), tmp_path / 'x.safetensors', {METADATA: content})
    assert read_checkpoint(tmp_path / 'x.safetensors')['meta'] in ({}, dict(dataset_meta=3))


def test_K1_7_the_home_folder_is_expanded(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    model = build(tiny)
    torch.save(model.state_dict(), tmp_path / 'x.pth')
    assert not differing_tensors(load_classifier(str(tiny), '~/x.pth')[0].cpu().state_dict(), model.state_dict())


@pytest.mark.parametrize(('optimizer', 'more'), [('Adam', 'betas'), ('RMSprop', 'alpha')])
def test_K1_8_another_optimizer_is_named(trained, tmp_path, optimizer, more):
    with pytest.raises(CheckpointError, match=f'it has dampening, .*nesterov; the one of this .*{more}'):
        runner(tmp_path, 2, optimizer, load_from=str(trained), resume=True).train()


def test_K1_8_other_groups_of_parameters_are_named(trained, tmp_path):
    other = runner(tmp_path, 2, load_from=str(trained), resume=True)
    other.optim_wrapper['paramwise_cfg'] = dict(custom_keys=dict(head=dict(lr_mult=2)))
    with pytest.raises(CheckpointError, match='1 groups of 4 parameters, in this config 4 of 4'):
        other.train()


@pytest.mark.parametrize('name', ['b.pth', 'epoch_1.pth'])
def test_K1_9_the_text_of_a_config_is_not_executed(trained, tmp_path, monkeypatch, name):
    mark = tmp_path / 'mark'
    content = read_checkpoint(trained)
    content['meta']['config'] = f'__import__("os").mknod({str(mark)!r})\n'
    torch.save(content, tmp_path / name)
    found = latest_checkpoint(str(tmp_path)) if name == 'epoch_1.pth' else str(tmp_path / name)
    runner(tmp_path / 'run', 2, load_from=found, resume=True).train()
    assert not mark.exists()
    # MMEngine itself executes it.
    monkeypatch.setattr('mmengine.runner.runner._load_checkpoint', lambda *args, **kwargs: content)
    runner(tmp_path / 'run2', 2, load_from=found, resume=True).train()
    assert mark.exists()


def test_K1_9_no_text_of_a_config_comes_out(trained):
    raw = torch.load(trained)
    assert 'cfg' in raw['meta'] and 'cfg' in raw['message_hub']['runtime_info']
    for content in (read_checkpoint(trained), mmengine_checkpoint._load_checkpoint(str(trained))):
        assert 'cfg' not in content['meta'] and 'cfg' not in content['message_hub']['runtime_info']


class Rebuild:
    """Pickles as a call of NumPy's functions with a state of the file's choice."""

    def __init__(self, function, args, state):
        self.made = function, args, state

    def __reduce__(self):
        return self.made


RECONSTRUCT, SCALAR = np.zeros(0).__reduce__()[0], np.float64().__reduce__()[0]


def fields(kind, state):
    return Rebuild(np.dtype, (kind, False, True), state)


NUMPY = {
    'dtype with a subarray of objects': lambda: fields('f8', (3, '|', (np.dtype('O'), (1,)), None, None, 8, 8, 0)),
    'dtype of objects': lambda: np.dtype('O'),
    'dtype of fields': lambda: np.dtype([('a', 'f8')]),
    'array of objects': lambda: np.array([None, 1], dtype=object),
    'array over bytes': lambda: Rebuild(np.ndarray, ((4,), np.dtype('f8'), bytes(32)), None),
    'array longer than its bytes': lambda: Rebuild(
        RECONSTRUCT, (np.ndarray, (0,), b'b'), (1, (10**6,), np.dtype('f8'), False, bytes(8))
    ),
    'number of too few bytes': lambda: Rebuild(SCALAR, (np.dtype('f8'), b'1'), None),
}


@pytest.mark.parametrize('name', NUMPY)
def test_K1_10_numpy_is_built_of_plain_kinds_alone(tmp_path, name):
    made = NUMPY[name]()
    if isinstance(made, Rebuild) and made.made[2] is None:
        made.made = made.made[:2]
    torch.save({'state_dict': {'a': torch.ones(1)}, 'message_hub': made}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='x.pth'):
        read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize('kind', ['f8', 'f4', 'f2', 'i8', 'i1', 'u1', 'b1', '>f4'])
def test_K1_10_plain_arrays_and_numbers_come_back_as_numpys_own(tmp_path, kind):
    array = np.arange(6).reshape(2, 3).astype(kind)
    content = {'state_dict': {'a': torch.ones(1)}, 'more': [array, np.asfortranarray(array), array[1, 1], array[:0]]}
    for name in ('x.pth', 'again.pth'):
        torch.save(content, tmp_path / name)
        content = read_checkpoint(tmp_path / name)
    for value, expected in zip(content['more'], (array, array, array[1, 1], array[:0])):
        assert np.array_equal(value, expected) and value.dtype == expected.dtype.newbyteorder('=')
    assert b'mmresattn.weights' not in (tmp_path / 'again.pth').read_bytes()


def test_K1_11_a_network_with_other_strides_is_refused():
    settings = dict(depth=50, base_channels=8, attention=dict(type='SqueezeExcitation'))
    caffe = MODELS.build(dict(type='AttentionResNet', style='caffe', caffe_pool=True, **settings))
    torchs = MODELS.build(dict(type='AttentionResNet', **settings))
    assert {key: value.shape for key, value in caffe.state_dict().items()} == {
        key: value.shape for key, value in torchs.state_dict().items()
    }
    theirs = dict(state_dict=torchs.state_dict(), meta=dict(mmpretrain_version='1.2.0'))  # as MMPretrain publishes
    with pytest.raises(CheckpointError, match="style='caffe', caffe_pool=True, which the file does not state.*"
                                              'model.backbone.style=pytorch'):  # fmt: skip
        load_weights(caffe, theirs, 'seresnet50_8xb32_in1k.pth')
    load_weights(torchs, theirs, 'seresnet50_8xb32_in1k.pth')
    said = dict(state_dict=torchs.state_dict(), meta=dict(mmresattn=record(torchs)))
    with pytest.raises(CheckpointError, match='layer2.0.conv1 has stride 1 in the file and stride 2 in the model'):
        load_weights(caffe, said, 'ours.pth')
    said = dict(state_dict=caffe.state_dict(), meta=dict(mmresattn=record(caffe)))
    load_weights(caffe, said, 'ours.pth')
    with pytest.raises(CheckpointError, match='maxpool has padding 0, ceil_mode True in the file|conv1 has stride 2'):
        load_weights(torchs, said, 'ours.pth')
    # A part may have smaller strides and be dilated, as for segmentation, but not others.
    dense = MODELS.build(dict(type='AttentionResNet', strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), **settings))
    said = dict(state_dict=torchs.state_dict(), meta=dict(mmresattn=record(torchs)))
    load_weights(dense, said, 'ours.pth', prefix='')
    with pytest.raises(CheckpointError, match='layer2.0.conv1'):
        load_weights(caffe, said, 'ours.pth', prefix='')
    with pytest.raises(CheckpointError, match='dilation'):
        load_weights(dense, said, 'ours.pth')


def test_K1_11_checkpoints_made_here_record_it(trained):
    assert read_checkpoint(trained)['meta']['mmresattn'] == dict(layers={})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda weight: weight.to(torch.int8), 'int8 for float32'),
        (lambda weight: weight.to(torch.complex64), 'complex64 for float32'),
        (lambda weight: weight * torch.nan, 'NaN'),
        (lambda weight: weight + torch.inf, 'infinite'),
        (lambda weight: weight.to_sparse(), 'sparse or quantised'),
        (lambda weight: weight.to('meta'), 'without values'),
        (lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), 'sparse or quantised'),
    ],
)
def test_K1_12_weights_of_no_use_are_refused_by_name(change, message):
    state = Net().state_dict()
    state['head.bias'] = change(torch.rand(3))
    with pytest.raises(CheckpointError, match=rf'1 weights that cannot be used: head.bias \({message}\)'):
        load_weights(Net(), state, 'x.pth')


def test_K1_12_they_are_not_published(tiny, tmp_path):
    torch.save({name: value.to(torch.int8) for name, value in build(tiny).state_dict().items()}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='weights that cannot be used'):
        publish_weights.main([str(tiny), str(tmp_path / 'x.pth'), str(tmp_path / 'x.safetensors')])
    assert not (tmp_path / 'x.safetensors').exists()


def test_K1_12_half_precision_is_welcome():
    model = Net()
    given = {name: value.half() for name, value in Net().state_dict().items()}
    load_weights(model, given, 'half.pth')
    assert not differing_tensors(model.state_dict(), {name: value.float() for name, value in given.items()})


def test_K1_13_whatever_a_damaged_file_raises_is_one_error_with_its_name_and_size(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / 'x.pth'
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    for zipped in (True, False):
        torch.save(
            {'state_dict': Net().state_dict(), 'message_hub': buffer}, path, _use_new_zipfile_serialization=zipped
        )
        whole = path.read_bytes()
        refused = 0
        for _ in range(60):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                read_checkpoint(path)
            except CheckpointError as error:
                refused += 1
                assert str(error).startswith(f'{path} ({len(whole):,} bytes)') or str(error).startswith(f'{path}:'), (
                    error
                )
                assert 'weights_only=False' not in str(error)
        assert refused > (15 if zipped else 3)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'hello world', r'is not a checkpoint: torch.save did not write it'),
        ({'state_dict': [1, 2]}, 'no weights by name: state_dict is a list'),
        ({'state_dict': {}}, 'state_dict is a dict'),
        ({'epoch': 3, 'net': {}}, 'no weights by name: found keys epoch, net'),
        ({'state_dict': {'a': 1}}, r"found state_dict\['a'\] with a int"),
        ({'state_dict': {1: torch.ones(1)}}, r'found state_dict\[1\]'),
    ],
)
def test_K1_13_files_without_weights(tmp_path, content, message):
    path = tmp_path / 'x.pth'
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_K1_13_torchscript(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='TorchScript archive.*state_dict') as error:
        read_checkpoint(tmp_path / 'x.pth')
    assert 'weights_only' not in str(error.value)


@pytest.mark.parametrize('meta', [{}, dict(epoch=1, iter=10**12), dict(epoch=-1, iter=2), dict(epoch='1', iter=2)])
def test_K1_13_a_run_is_not_resumed_from_nonsense(trained, tmp_path, meta):
    content = read_checkpoint(trained)
    content['meta'] = meta
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='x.pth cannot be resumed from'):
        runner(tmp_path, 2, load_from=str(tmp_path / 'x.pth'), resume=True).train()


def test_K1_14_damage_is_no_attack_and_resume_takes_the_one_before(tmp_path, capsys):
    content = {'state_dict': {'a': torch.rand(100_000)}, 'meta': {}}
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        torch.save(content, tmp_path / name)
        os.utime(tmp_path / name, (1, int(name[6])))
    raw = bytearray((tmp_path / 'epoch_2.pth').read_bytes())
    raw[100_000:165_536] = bytes(65_536)
    (tmp_path / 'epoch_2.pth').write_bytes(raw)
    with pytest.raises(DamagedCheckpoint, match='is damaged') as error:
        read_checkpoint(tmp_path / 'epoch_2.pth')
    assert 'trust' not in str(error.value)
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_1.pth')
    assert 'epoch_2.pth' in capsys.readouterr().out
    # One that is whole and hostile is not passed over in silence.
    torch.save({'more': Touch(tmp_path / 'mark')}, tmp_path / 'epoch_3.pth')
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_3.pth')


def rewritten(path, out, compression=zipfile.ZIP_STORED, change=lambda name, content: content):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, 'w', compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out


def test_K1_15_sizes_are_bounded(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'a': torch.zeros(10_000)}, path)
    deflated = rewritten(path, tmp_path / 'deflated.pth', zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match='compressed archive, which torch.save never writes'):
        read_checkpoint(deflated)

    many = (10**9).to_bytes(4, 'little')
    count = b"M\x10'"  # 10,000 as a pickled integer

    def larger(name, content):
        return content.replace(count, b'J' + many) if name.endswith('data.pkl') else content

    assert larger('data.pkl', count) != count
    with pytest.raises(CheckpointError, match='larger.pth'):
        read_checkpoint(rewritten(path, tmp_path / 'larger.pth', change=larger))
    torch.save({'a': torch.zeros(10_000)}, path, _use_new_zipfile_serialization=False)
    (tmp_path / 'legacy.pth').write_bytes(path.read_bytes().replace(count, b'J' + many))
    with pytest.raises(DamagedCheckpoint, match='claims to hold 4,000,000,000 bytes'):
        read_checkpoint(tmp_path / 'legacy.pth')
    torch.save({'a': torch.zeros(1).expand(10**6, 10**6)}, path)
    with pytest.raises(DamagedCheckpoint, match='claims to hold 4,000,000,000,000 bytes'):
        read_checkpoint(path)


@pytest.mark.parametrize('content', [bytes(64), b'\xff\xfe', b''])
def test_K1_16_last_checkpoint_after_a_power_cut(tmp_path, content):
    (tmp_path / 'last_checkpoint').write_bytes(content)
    assert latest_checkpoint(str(tmp_path)) is None
    torch.save({}, tmp_path / 'iter_3.pth')
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / 'iter_3.pth')


def test_K1_16_a_copy_of_a_work_dir_keeps_to_its_own(tmp_path):
    original, copy, out = tmp_path / 'original', tmp_path / 'copy', tmp_path / 'out'
    for folder in (original, copy, out / 'copy'):
        folder.mkdir(parents=True)
    torch.save({}, original / 'last.pth')
    (copy / 'last_checkpoint').write_text(str(original / 'last.pth'))
    assert latest_checkpoint(str(copy)) is None
    torch.save({}, copy / 'last.pth')
    assert latest_checkpoint(str(copy)) == str(copy / 'last.pth')
    os.utime(copy / 'last.pth', (1, 1))
    torch.save({}, out / 'copy' / 'epoch_7.pth')  # out_dir of the checkpoint hook
    assert latest_checkpoint(str(copy), str(out)) == str(out / 'copy' / 'epoch_7.pth')


def test_K1_17_a_work_dir_belongs_to_one_training(tmp_path):
    lock_work_dir(tmp_path)
    lock_work_dir(tmp_path)  # the same process may train in it again
    child = os.fork()
    if not child:
        os._exit(try_to_lock(tmp_path))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def try_to_lock(folder):
    """Exit status of another process that trains in the folder: 7 if it is told who does."""
    from mmresattn.weights import files

    files._locks.clear()
    try:
        lock_work_dir(folder)
    except RuntimeError as error:
        return 7 if f'in use by another training (process {os.getppid()} on' in str(error) else 8
    return 9


def test_K1_17_unfinished_files_have_names_of_their_own(tmp_path, monkeypatch):
    names = []
    replace = os.replace
    monkeypatch.setattr(os, 'replace', lambda part, path: (names.append(part.name), replace(part, path)))
    for _ in range(2):
        write_whole(tmp_path / 'epoch_1.pth', b'content')
    assert len(set(names)) == 2 and not any(name.endswith('.pth') for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_1.pth']


def test_K1_18_a_full_disk_does_not_hide_the_cause(tmp_path, monkeypatch):
    class Wrong(Net):
        def forward(self, inputs, mode='tensor'):
            losses = super().forward(inputs, mode)
            return {name: value * torch.nan for name, value in losses.items()}

    def full(path, content):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmresattn.engine.nonfinite_hook.write_whole', full)
    run = runner(tmp_path, model=Wrong(), hooks=[dict(type='NonFiniteLossHook')])
    logged = []
    monkeypatch.setattr(run.logger, 'error', logged.append)
    with pytest.raises(FloatingPointError, match='The first module .*could not be saved .*No space left on device'):
        run.train()
    assert 'is not finite' in logged[0] and 'The first module' in logged[0]


def test_K1_20_mmengines_loader_returns_what_the_file_holds(tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

    inner, outer = Model(), nn.ModuleDict(dict(backbone=Model()))
    path = str(tmp_path / 'x.pth')
    torch.save(inner.state_dict(), path)
    returned = load_checkpoint(outer, path, revise_keys=[(r'^', 'backbone.')])
    assert list(returned) == ['conv.weight', 'conv.bias']
    assert torch.equal(outer['backbone'].conv.weight, inner.conv.weight)
    assert mmengine_checkpoint._load_checkpoint_with_prefix('conv', path).keys() == {'weight', 'bias'}
    names = {scheme: load.__name__ for scheme, load in mmengine_checkpoint.CheckpointLoader._schemes.items()}
    assert names[''] == 'load_from_local' and names['http://'] == 'load_from_http'
