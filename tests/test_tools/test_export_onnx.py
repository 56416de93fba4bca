"""What is exported gives the model's outputs and maps, at batches and sizes that were not traced."""

from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from safetensors.torch import save_file

from mmresattn.models import backbones
from mmresattn.models.layers import AttentionMap, attention_maps, record_attention
from mmresattn.utils import forward_images
from tests.conftest import ROOT, check_onnx
from tools.deployment import export_onnx as tool

onnxruntime = pytest.importorskip('onnxruntime', reason='needs requirements/deployment.txt')
pytest.importorskip('onnxscript', reason='needs requirements/deployment.txt')
load_onnx = pytest.importorskip('onnx').load

ONE_STAGE = dict(depth=18, base_channels=8, stem_channels=8, num_stages=1, strides=(1,), dilations=(1,))
RESNET = dict(ONE_STAGE, num_stages=2, strides=(1, 2), dilations=(1, 1))
RAN = dict(
    type='ResidualAttentionNet',
    arch=dict(base='attention56-cifar', channels=(16, 32), strides=(1, 2), modules=(0, 1), poolings=(1, 1),
              units_after=(0, 0), t=1, bottom_units=1),
)  # fmt: skip
CIFAR = dict(type='CIFARResNet', depth=8, base_channels=8, stem_channels=8)
PAN = dict(base='vgg-pan', stages=([8], [('max', 2), 16], [('max', 2), 16]), tail=[('max', 2), 16], global_channels=16)


def classifier(backbone, channels):
    head = dict(type='LinearClsHead', num_classes=4, in_channels=channels)
    return dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)


def attending(*layers, resnet=ONE_STAGE):
    return classifier(
        dict(type='AttentionResNet', attention=layers, out_indices=-1, **resnet), 8 * resnet['num_stages']
    )


def branches(backbone, **kwargs):
    head = dict(type='AttentionBranchHead', num_classes=4)
    return {'type': 'AttentionBranchNetwork', 'backbone': backbone, 'head': head, **kwargs}


def non_local(stage, block, **kwargs):
    return dict(type='NonLocalAttention', stages=[(block,) if i == stage else () for i in range(2)], **kwargs)


FAMILIES = {
    'residual attention': classifier(RAN, 32),
    'masks around a ResNet': classifier(
        dict(type='ResidualAttention', trunk=dict(type='ResNet', out_indices=(1,), **RESNET), poolings=(None, 1)), 16
    ),
    'squeeze and excitation': attending(dict(type='SqueezeExcitation', ratio=4, stages=[(0,)])),
    'squeeze and excitation, Inception': classifier(dict(type='SEBNInception', out_indices=0), 320),
    # Attends over the traced 4x4, to which it pools, as over any other size.
    'augmented': attending(
        dict(type='AttentionAugmentedConv', heads=2, upsilon=0.5, min_head_keys=4, size=4, pool=True, stages=[(1,)])
    ),
    'non-local': attending(
        non_local(0, 1, mode='gaussian', sub_sample=True),  # for the embedded one see below
        non_local(1, 0, mode='dot_product', sub_sample=True, pool_first=True), non_local(1, 1, mode='concatenation'),
        resnet=RESNET,
    ),
    'pay attention': dict(
        type='PayAttentionNetwork',
        backbone=dict(type='PayAttentionNet', arch=dict(PAN, gates=(None, [('max', 4), 16], None)), out_indices=(1, 2)),
        head=dict(type='PayAttentionHead', num_classes=4),
    ),
    'pay attention, dot product': dict(
        type='PayAttentionNetwork',
        backbone=dict(type='ResNet', out_indices=(0, 1), **RESNET),
        neck=dict(type='PayAttention', score='dp'),
        head=dict(type='PayAttentionHead', num_classes=4, combine='indep'),
    ),
    'attention branch': branches(CIFAR),
    'Bayesian attention branch': branches(CIFAR, type='BayesianAttentionBranchNetwork', passes=1),
    'attention branch of tasks': branches(
        CIFAR,
        neck=dict(type='MultiTaskAttentionBranchNeck'),
        head=dict(type='MultiTaskAttentionBranchHead', num_classes=2),
    ),
    'attention branch on DenseNet': branches(dict(type='CIFARDenseNet', depth=10, growth_rate=8)),
    'attention branch on WRN': branches(dict(type='CIFARWideResNet', depth=10, widen_factor=1)),
    'attention branch on ResNeXt': branches(dict(type='CIFARResNeXt', depth=11, groups=2, width_per_group=8)),
}  # fmt: skip
TWO = ['squeeze and excitation', 'attention branch']  # for the formats other than ONNX
# With an operation that no other has: the program of open shapes, which takes ten times as long as a trace.
PROGRAMS = [*TWO, 'residual attention', 'augmented', 'non-local', 'pay attention']


def build(cfg, scope='mmpretrain'):
    """A model in evaluation mode, in which no mask or block is switched off by weights of zero."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(cfg)
    for parameter in model.parameters():
        if parameter.dim() < 2 or not parameter.any():
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    return model.eval()


def expected(model, names, images):
    with torch.no_grad(), record_attention(model, names) if names else nullcontext({}) as maps:
        outputs = forward_images(model, images)
    return [*([outputs] if isinstance(outputs, torch.Tensor) else outputs), *(maps[name] for name in names)]


def compare(run, model, names, shapes):
    """``run`` against the model, whose maps are recorded here."""
    for shape in shapes:
        images = torch.randn(shape)
        for found, value in zip(run(images), expected(model, names, images), strict=True):
            torch.testing.assert_close(torch.as_tensor(found), value, rtol=0, atol=1e-3 * float(value.abs().max()))


def onnx(file):
    run = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    return lambda images: run.run(None, {'images': images.numpy()})


UNTRACED = [(1, 3, 32, 32), (3, 3, 43, 56)]


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """For a family the model, the names of its maps, its file and its program; made once."""

    @cache
    def export(family):
        model = build(FAMILIES[family])
        names, images = list(attention_maps(model)), torch.randn(2, 3, 32, 32)
        file = tmp_path_factory.mktemp('exported') / 'model.onnx'
        return model, names, file, tool.export(model, images, file, names)

    return export


@pytest.mark.parametrize('family', PROGRAMS)
def test_every_operation_at_open_batch_and_size(exported, family):
    model, names, file, _ = exported(family)
    assert names
    run = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    assert [out.name for out in run.get_outputs()] == ['logits', *names]
    compare(onnx(file), model, names, UNTRACED)


@pytest.mark.parametrize('family', [family for family in FAMILIES if family not in PROGRAMS])
def test_every_family_by_tracing(tmp_path, family):
    model, images = build(FAMILIES[family]), torch.randn(3, 3, 32, 32)
    check_onnx(model, images, tmp_path / 'model.onnx')


def test_without_maps_softmax_attention_is_fused(tmp_path):
    model = build(attending(dict(type='NonLocalAttention', use_scale=True, stages=[(1,)])))
    images = torch.randn(2, 3, 32, 32)
    tool.export(model, images, tmp_path / 'model.onnx', [])
    compare(onnx(tmp_path / 'model.onnx'), model, [], UNTRACED)


def test_every_registered_backbone_is_among_them():
    def types(cfg):
        if isinstance(cfg, dict):
            yield cfg.get('type')
            for value in cfg.values():
                yield from types(value)

    registered = {name for name in backbones.__all__ if name in MODELS.module_dict}
    assert len(registered) == 9 and registered <= {name for cfg in FAMILIES.values() for name in types(cfg)}


@pytest.mark.parametrize('family', TWO)
def test_exported_program_trace_and_openvino(exported, family):
    model, names, file, program = exported(family)
    compare(program.module(), model, names, UNTRACED)
    with torch.no_grad():
        traced = torch.jit.trace(tool.WithMaps(model, names), torch.randn(2, 3, 32, 32), check_trace=False)
    compare(traced, model, names, [(2, 3, 32, 32)])  # a trace keeps its size
    openvino = pytest.importorskip('openvino')
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(file), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    compare(lambda images: list(compiled(images.numpy()).values()), model, names, UNTRACED)


DETECTOR = """
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'
model = dict(neck=dict(in_channels=[8, 16], out_channels=8, start_level=0, num_outs=2), bbox_head=dict(in_channels=8))
"""
SEGMENTER = """
_base_ = 'mmseg::_base_/models/upernet_r50.py'
norm_cfg = dict(type='BN')
head = dict(norm_cfg=norm_cfg, channels=8, num_classes=3)
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(32, 32)),
    decode_head=dict(in_channels=[8, 16], in_index=[0, 1], **head),
    auxiliary_head=dict(in_channels=8, in_index=0, **head),
)
"""


@pytest.mark.parametrize(
    ('text', 'package', 'static'), [(DETECTOR, 'mmdet', False), (SEGMENTER, 'mmseg', True)], ids=['detector', 'PPM']
)
def test_dense_models(tmp_path, text, package, static):
    """Of a detector backbone and neck; a pyramid pooling at one size."""
    pytest.importorskip(f'{package}.models')
    (tmp_path / 'dense.py').write_text(text)
    cfg = Config.fromfile(tmp_path / 'dense.py')
    se = dict(type='SqueezeExcitation', ratio=4, stages=[(), (1,)])
    cfg.model.backbone = dict(type='AttentionResNet', attention=se, out_indices=(0, 1), **RESNET)
    model, images = build(cfg.model, package), torch.randn(2, 3, 32, 32)
    names = list(attention_maps(model))
    tool.export(model, images, tmp_path / 'model.onnx', names, static)
    compare(onnx(tmp_path / 'model.onnx'), model, names, [(2, 3, 32, 32)] if static else UNTRACED)


class OfOneSize(torch.nn.Module):
    """A network that works at one batch and size alone."""

    def forward(self, images):
        return images.reshape(2, 3 * 32 * 32)


def test_a_network_of_one_size_needs_static(tmp_path):
    images = torch.randn(2, 3, 32, 32)
    with pytest.raises(RuntimeError, match=r'OfOneSize cannot be exported with open batch.*--static --size 32 32'):
        tool.export(OfOneSize(), images, tmp_path / 'open.onnx', [])
    assert not list(tmp_path.iterdir())


def test_maps_that_are_not_computed_from_images_are_refused():
    model = build(FAMILIES['squeeze and excitation'])
    names = list(attention_maps(model))
    images = torch.randn(2, 3, 32, 32)
    assert tool.maps_of_images(model, images) == names
    model.head.map = AttentionMap('channel')  # as a head may have one that only runs with boxes or words
    assert tool.maps_of_images(model, images) == names
    with pytest.raises(ValueError, match=r"\['head.map'\] are not among what is exported"):
        tool.maps_of_images(model, images, ['head.map'])


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """Config and weights of a small network, and a folder of images."""
    folder = tmp_path_factory.mktemp('tiny')
    config = Config.fromfile(ROOT / 'configs/resattn/attention56_digits.py')
    config.model = FAMILIES['squeeze and excitation']
    config.dump(folder / 'tiny.py')
    save_file(build(config.model).state_dict(), folder / 'tiny.safetensors')
    (folder / 'images/of a class').mkdir(parents=True)
    for i in range(8):
        image = np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(image).save(folder / f'images/of a class/{i}.png')
    (folder / 'images/broken.png').write_bytes(b'no image')
    return folder


def test_tool_writes_program_and_int8_of_a_folder(tiny, tmp_path, capsys):
    files = [str(tiny / 'tiny.py'), str(tiny / 'tiny.safetensors'), str(tmp_path / 'a.onnx')]
    more = ['--torch-export', '--reduce-range', '--int8', str(tiny / 'images')]  # alike on every CPU
    tool.main([*files, '--size', '32', '32', *more])
    out = capsys.readouterr().out
    assert 'skipped: ' in out and 'the class of float32 in' in out and 'of 8 images' in out
    assert {path.name for path in tmp_path.iterdir()} == {'a.onnx', 'a.pt2', 'a.int8.onnx'}
    model = build(FAMILIES['squeeze and excitation'])
    names = list(attention_maps(model))
    compare(torch.export.load(tmp_path / 'a.pt2').module(), model, names, UNTRACED)
    images = torch.randn(3, 3, 43, 56)
    for found, value in zip(onnx(tmp_path / 'a.int8.onnx')(images), expected(model, names, images), strict=True):
        assert np.abs(found - value.numpy()).mean() <= 0.1 * float(value.abs().max())
    assert 'DequantizeLinear' in {node.op_type for node in load_onnx(tmp_path / 'a.int8.onnx').graph.node}


def test_file_of_one_batch_size(tiny, tmp_path, capsys):
    """Images of the calibration and of the test come in batches of that size; 8 and 10 are no multiples of 3."""
    files = [str(tiny / 'tiny.py'), str(tiny / 'tiny.safetensors'), str(tmp_path / 'a.onnx')]
    static = [*files, '--size', '16', '16', '--static', '--batch', '3', '--maps']
    tool.main([*static, '--int8', str(tiny / 'images'), '--images', '10', '--speed', '3'])
    out = capsys.readouterr().out
    assert 'of 6 images of the calibration' in out and out.count('% of 9 images\n') == 2
    assert 'int8: ' in out and 'images/s at batch 3' in out
    with pytest.raises(SystemExit):
        tool.main([*static, '--speed', '4'])
    assert '--speed 4 differs from --batch 3' in capsys.readouterr().err
    with pytest.raises(ValueError, match='--batch 3 needs at least as many images, not 2'):
        tool.in_batches([np.zeros((1, 2)), np.zeros((1, 2))], 3)


def test_a_file_that_disagrees_gets_no_name(tiny, tmp_path, monkeypatch):
    def other_model(file):
        return lambda images: [np.full((len(images), 4), np.nan, 'float32')]

    monkeypatch.setattr(tool, 'export', lambda model, images, file, *args: file.touch())
    monkeypatch.setattr(tool, 'onnx_call', other_model)
    files = [str(tiny / 'tiny.py'), str(tiny / 'tiny.safetensors'), str(tmp_path / 'a.onnx')]
    with pytest.raises(RuntimeError, match=r'differs from the model: logits of images \(2, 3, 32, 32\)'):
        tool.main([*files, '--size', '32', '32', '--static', '--batch', '2', '--maps'])
    assert not list(tmp_path.iterdir())
