import importlib
import re
import runpy
from functools import cache
from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
import yaml
from mmpretrain.apis.model import ModelHub
from modelindex.load_model_index import load
from safetensors.torch import load_file

import mmresattn
from mmresattn.apis import model_index
from mmresattn.models.layers import NonLocalAttention
from mmresattn.utils import count_multiply_adds
from tests.conftest import ROOT

CONFIGS = {path.stem: path.relative_to(ROOT) for path in ROOT.glob('configs/[!_]*/**/*.py')}
METAFILES = sorted(ROOT.glob('configs/*/metafile.yml'))
MODELS = [(file, model) for file in METAFILES for model in yaml.safe_load(file.read_text())['Models']]
NEEDS = dict(detection='mmdet', detection_branch='mmdet', segmentation='mmseg')


def read(path):
    return re.sub(r'\s+', ' ', (ROOT / path).read_text())


@pytest.fixture(scope='module')
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, 'safe_load', cache(yaml.safe_load))  # it reads all metafiles for every page
        yield runpy.run_path(str(ROOT / '.dev_scripts' / 'model_index.py'))


def test_every_config_is_in_the_index_under_its_name():
    names = [model['Name'] for _, model in MODELS]
    assert sorted(names) == sorted(CONFIGS)
    assert all(name == name.lower() for name in names)
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert sorted(index['Import']) == [str(file.relative_to(ROOT)) for file in METAFILES]
    assert {file.parent for file in METAFILES} == set(ROOT.glob('configs/[!_]*'))


@pytest.mark.parametrize('metafile', METAFILES, ids=lambda file: file.parent.name)
def test_numbers_and_tables_are_what_the_code_counts(metafile, script):
    """Else: python .dev_scripts/model_index.py --write"""
    pytest.importorskip(
        {**NEEDS, **dict.fromkeys(('captioning', 'photos', 'regression', 'resattn'), 'timm')}.get(
            metafile.parent.name, 'mmpretrain'
        )
    )
    assert metafile.read_text() == script['counted'](metafile)
    assert metafile.with_name('README.md').read_text() == script['tabulated'](metafile)


def test_the_zoo_is_what_the_metafiles_say(script):
    """Otherwise: python .dev_scripts/model_index.py --write"""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    page = ROOT / 'docs/zoo.md'
    assert page.read_text() == script['zoo'](page)
    rows = [line for line in page.read_text().splitlines() if line.startswith('| [')]
    assert len(rows) == len(MODELS) and set(script['FAMILIES']) < {file.parent.name for file in METAFILES}
    for table in re.findall(r'(?m)(?:^\|.*\n)+', page.read_text()):  # no column without a value
        cells = [line.strip('|\n').split(' | ') for line in table.splitlines()]
        assert all(any(row[i].strip() for row in cells[2:]) for i in range(len(cells[0])))
    starts = {'attention-resnet18_imagenet': '`mmpretrain::resnet18_8xb32_in1k`', 'attention56_imagenet': '',
              'vgg-att2-pc_cub200': 'vgg-att2-pc_cifar100, trained before'}  # fmt: skip
    for name, start in starts.items():
        assert script['start'](ROOT / CONFIGS[name]) == start


def test_findings_K5_1_tables_of_the_pages_say_what_the_metafiles_say(script, tmp_path):
    """Else: python .dev_scripts/model_index.py --write"""
    for page in set(ROOT.glob('docs/*.md')) - {ROOT / 'docs/zoo.md'}:
        assert page.read_text() == script['filled'](page), page.name
    wrong = tmp_path / 'page.md'
    link = '[x](../configs/detection/faster-rcnn_attention56-cifar_fpn_bccd.py)'
    wrong.write_text(
        f'| a | box AP | Parameters | b |\n| --- | --- | --- | --- |\n| {link} | 1.00 % (was 2) | 3 | 4 |\n'
    )
    assert script['filled'](wrong).splitlines()[2] == f'| {link} | 58.80 % (was 2) | 2,078,735 | 4 |'


@pytest.mark.parametrize('place', ['cpu', 'meta'])
def test_findings_K5_1_products_of_self_attention_count_by_shape(place):
    q, k, v = (torch.empty(2, 3, n, 8, device=place) for n in (20, 30, 30))
    with torch.device(place):
        assert count_multiply_adds(torch.nn.functional.scaled_dot_product_attention, q, k, v) == 2 * (
            2 * 3 * 20 * 30 * 8
        )
        block = NonLocalAttention(16, mode='embedded_gaussian', norm_cfg=None)
        image = torch.empty(1, 16, 6, 5)
    convolutions = 30 * 4 * 16 * 8  # theta, phi, g and the output, between 16 and 8 channels
    assert count_multiply_adds(block, image) == convolutions + 2 * 30 * 30 * 8


def test_counts_are_those_that_the_papers_files_give(script):
    """Of networks whose numbers are known from elsewhere: the authors' Caffe files and torchvision's ResNet-50."""
    assert script['count'](ROOT / 'configs/resattn/attention56_imagenet.py')['Parameters'] == 31_810_728
    assert script['count'](ROOT / 'configs/resattn/attention92_imagenet.py')['Parameters'] == 52_466_344
    assert script['count'](ROOT / 'configs/resattn/attention56_imagenet.py')['FLOPs'] == pytest.approx(6.27e9, abs=5e6)


@pytest.mark.parametrize(('metafile', 'model'), MODELS, ids=lambda part: part['Name'] if isinstance(part, dict) else '')
def test_every_entry_names_files_that_exist_and_figures_with_their_source(metafile, model):
    assert model['Config'] == str(CONFIGS[model['Name']]) and CONFIGS[model['Name']].parts[1] == metafile.parent.name
    assert f'[{model["Name"]}](' in metafile.with_name('README.md').read_text()
    for key in ('Weights', 'Training Log'):
        file = model.get(key, '.')
        assert file.startswith('https://download.openmmlab.com/') or (ROOT / file).exists()
    data = model['Metadata']
    config = read(model['Config'])
    # What others have published is a sentence of the config, and where there is such a sentence, it is here.
    assert data.get('Published Results', '') in config
    source = r"([Pp]aper|Authors' page)(, table \d+)?: |A port by others reports|the authors ship|MMPretrain's zoo: "
    assert ('Published Results' in data) == bool(re.search(source, config))
    # What is a result here stands with its circumstances in what was measured.
    results = model['Results'] or []
    names = 'captioning compare detection photos regression reproduce segmentation'.split()
    pages = ''.join(map(read, ['weights/README.md', *(f'docs/{name}.md' for name in names)]))
    for result in results:
        for value in result['Metrics'].values():
            assert re.search(rf'\b{re.escape(str(value))}0?\b', pages)
    tasks = {result['Task'] for result in results}  # MMPretrain builds an inferencer by this name
    if metafile.parent.name == 'captioning':  # captions differ in length, and so in multiply-adds
        assert tasks == {'Image Caption'} and 'FLOPs' not in data
    elif metafile.parent.name not in NEEDS:
        assert data['FLOPs'] > 0
        others = 'multitask' in model['Name'] or metafile.parent.name == 'regression'
        assert (tasks == {'Image Classification'}) == (not others)


def test_index_is_one_by_its_own_library():
    index = load(str(ROOT / 'model-index.yml'))
    assert [
        error for error in index.check(silent=True) if 'README' not in error
    ] == []  # theirs lie beside the metafile
    collections = {collection.name: collection for collection in index.collections}
    assert len(collections) == len(METAFILES)
    for collection in collections.values():
        assert collection.paper['Title'] and collection.paper['URL'].startswith('https://arxiv.org/abs/')
        assert (ROOT / collection.readme).is_file() and (ROOT / collection.code['URL']).is_file()
    assert {model.in_collection for model in index.models} == set(collections)


def test_data_sets_are_there_to_download():
    for entry in yaml.safe_load((ROOT / 'dataset-index.yml').read_text()).values():
        assert entry['dataset'].startswith('OpenDataLab/') and entry['download_root'] == 'data'


def test_mmpretrain_lists_every_classifier_and_nothing_else_of_ours():
    classifiers = {model['Name'] for file, model in MODELS if file.parent.name not in NEEDS}
    assert classifiers & set(mmpretrain.list_models()) == classifiers
    assert not set(mmpretrain.list_models()) & (CONFIGS.keys() - classifiers)
    assert set(mmpretrain.list_models('attention92_imagenet')) >= {'attention92_imagenet'}
    assert 'attention56_digits' in mmpretrain.list_models('attention*', task='Image Classification')
    assert 'resnet50_8xb32_in1k' in mmpretrain.list_models()  # and its own


def test_a_model_is_built_by_its_name():
    with torch.device('meta'):
        model = mmpretrain.get_model('attention56_imagenet')
    assert sum(parameter.numel() for parameter in model.parameters()) == 31_810_728
    assert not model.training
    assert Path(model._config.filename) == ROOT / 'configs/resattn/attention56_imagenet.py'


def test_pretrained_weights_are_those_of_the_repository(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = mmpretrain.get_model('attention56_cifar10_fast', pretrained=True)
    weights = load_file(ROOT / 'weights' / 'attention56_cifar10_fast.safetensors')
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, weights[name].to(weight.dtype))


def test_pretrained_weights_may_be_elsewhere_and_their_lack_is_no_silence(monkeypatch, tmp_path):
    monkeypatch.setenv('MMRESATTN_WEIGHTS', str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}/attention56_cifar10_fast.safetensors.*MMRESATTN_WEIGHTS'):
        mmpretrain.get_model('attention56_cifar10_fast', pretrained=True)
    (tmp_path / 'attention56_cifar10_fast.safetensors').symlink_to(
        ROOT / 'weights/attention56_cifar10_fast.safetensors'
    )
    mmpretrain.get_model('attention56_cifar10_fast', pretrained=True)


@torch.no_grad()
def test_findings_K1_11_weights_of_mmpretrains_zoo_give_its_outputs(tmp_path):
    """A narrow network with random weights and statistics stands in for the file of that name."""
    for depth in (50, 101):
        address = ModelHub.get(f'seresnet{depth}_8xb32_in1k').weights
        assert ModelHub.get(f'se-resnet{depth}_imagenet').weights == address and address.startswith('https://')
    narrow = dict(
        backbone=dict(stem_channels=32, base_channels=32), head=dict(num_classes=7, in_channels=1024), pretrained=True
    )
    theirs = mmpretrain.get_model('seresnet50_8xb32_in1k', **{**narrow, 'pretrained': False})
    for value in theirs.state_dict().values():
        if value.dim() < 2 and value.is_floating_point():
            value.add_(torch.rand_like(value))
    file = ModelHub.get('se-resnet50_imagenet').weights.rpartition('/')[2]
    torch.save(dict(state_dict=theirs.state_dict(), meta={}), tmp_path / file)
    ours = mmpretrain.get_model('se-resnet50_imagenet', url_mapping=('https://.*/', f'{tmp_path}/'), **narrow)
    images = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


def test_inference_of_an_image():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)  # BGR
    answer = mmpretrain.inference_model('attention56_cifar10_fast', image)
    model = mmpretrain.get_model('attention56_cifar10_fast', pretrained=True)
    rgb = torch.tensor(image[..., ::-1].transpose(2, 0, 1).copy(), dtype=torch.float32)
    mean, std = (torch.tensor(model._config.data_preprocessor[key]).view(3, 1, 1) for key in ('mean', 'std'))
    with torch.no_grad():
        scores = model(((rgb - mean) / std)[None], mode='tensor').softmax(1)[0]
    assert answer['pred_scores'] == pytest.approx(scores.numpy(), abs=1e-5)
    assert answer['pred_label'] == scores.argmax() and answer['pred_score'] == pytest.approx(
        scores.max().item(), abs=1e-5
    )


@pytest.mark.parametrize('name', ['abn-resnet20_cifar100', 'pay-wrn16-2_cifar10', 'se-wrn16-2_cifar10'])
@pytest.mark.filterwarnings('ignore:Unable to find pre-defined checkpoint')
def test_inference_of_other_families(name):
    answer = mmpretrain.inference_model(name, np.zeros((32, 32, 3), np.uint8))
    assert answer['pred_scores'].shape == (100 if '100' in name else 10,)
    assert answer['pred_scores'].sum() == pytest.approx(1, abs=1e-4)


def test_reloading_registers_nothing_twice():
    listed = mmpretrain.list_models()
    importlib.reload(model_index)
    importlib.reload(mmresattn)
    assert mmpretrain.list_models() == listed


def test_name_of_another_package_is_not_taken(monkeypatch):
    models = dict.fromkeys(['attention56_imagenet'], ModelHub.get('resnet50_8xb32_in1k'))
    monkeypatch.setattr(ModelHub, '_models_dict', models)
    with pytest.raises(ValueError, match='attention56_imagenet of .* is already registered'):
        model_index.register_models()
