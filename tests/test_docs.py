import argparse
import ast
import html.parser
import importlib
import json
import os.path as osp
import pkgutil
import re
import runpy
import shlex
import sys
from urllib.parse import unquote, urlsplit

import matplotlib
import numpy as np
import pytest
import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from page_tables import fill
from PIL import Image

from mmresattn.models import ResidualAttentionNet
from mmresattn.models.layers import AttentionModule, attention_maps, edit_attention, record_attention
from tests.conftest import ROOT

DOCS = ROOT / 'docs'
PACKAGES = ['apis', 'datasets', 'engine', 'evaluation', 'models', 'visualization']
PACKAGES += [f'models.{name}' for name in ('backbones', 'classifiers', 'heads', 'layers', 'necks')]


def code_of(page, title=None):
    """The blocks of Python on a page; of a title, that one alone."""
    blocks = re.findall(r'(?ms)^```python(?: title="(.*?)")?\n(.*?)^```', (DOCS / page).read_text())
    return [code for name, code in blocks if title in (None, name)]


def public():
    """What the packages offer, by the package: ``__all__``, or else the own things that one imports."""
    for name in PACKAGES:
        module = importlib.import_module(f'mmresattn.{name}')
        own = [key for key, part in vars(module).items() if getattr(part, '__module__', '').startswith('mmresattn.')]
        for key in getattr(module, '__all__', own):
            yield f'mmresattn.{name}', key, getattr(module, key)


def registered():
    """Every part of this package in MMEngine's root registries."""
    for node in vars(root).values():
        for key, part in node.module_dict.items() if isinstance(node, root.Registry) else ():
            if part.__module__.startswith('mmresattn.'):
                yield part.__module__.rpartition('.')[0], key, part


def homes(package, key, part):
    """The paths of a part: in every package above the file that has it."""
    folders = getattr(part, '__module__', package).split('.')
    return {f'{package}.{key}', *('.'.join([*folders[:i], key]) for i in range(1, len(folders) + 1))}


class Page(html.parser.HTMLParser):
    """What a page of the site names, loads and links."""

    def __init__(self, file):
        super().__init__()
        self.ids, self.loads, self.links = set(), set(), set()
        self.feed(file.read_text('utf-8'))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get('id'))
        if tag == 'a' or attributes.get('rel') == 'canonical':
            self.links.add(attributes.get('href'))
        else:
            self.loads |= {attributes.get('src'), attributes.get('href')}


@pytest.fixture(scope='module')
def site(python, tmp_path_factory):
    """The pages of the site by their path. A warning of mkdocs, of a link or a docstring, is an error."""
    pytest.importorskip('material', reason='needs requirements/docs.txt')
    pytest.importorskip('mkdocstrings', reason='needs requirements/docs.txt')
    folder = tmp_path_factory.mktemp('site')
    done = python('-m', 'mkdocs', 'build', '--strict', '--site-dir', folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, {file.relative_to(folder).as_posix(): Page(file) for file in folder.rglob('*.html')}


def test_all_names_are_in_the_reference(site):
    ids = set().union(*(page.ids for path, page in site[1].items() if path.startswith('api/')))
    parts = [*public(), *registered()]
    assert len(parts) > 100
    missing = [f'{package}.{key}' for package, key, part in parts if not homes(package, key, part) & ids]
    assert not missing, f'Put `::: NAME` on a page of docs/api, for {missing}.'


def test_links_of_the_site(site):
    folder, pages = site
    for path, page in pages.items():
        if path == '404.html':  # is shown under any address, and links from the root
            continue
        for link in filter(None, page.links | page.loads):
            to = urlsplit(link)
            if to.scheme or to.netloc:
                continue
            goal = osp.normpath(osp.join(osp.dirname(path), unquote(to.path))) if to.path else path
            assert (folder / goal).is_file(), f'{path} links {link}'
            if to.fragment and goal in pages and not to.fragment.startswith('__'):
                assert unquote(to.fragment) in pages[goal].ids, f'{path} links {link}'


def test_nothing_comes_from_other_hosts(site):
    folder, pages = site
    for path, page in pages.items():
        outside = {url for url in filter(None, page.loads) if urlsplit(url).netloc}
        assert not outside, f'{path} loads {outside}'
    for sheet in folder.rglob('*.css'):
        assert not re.search(r'(url\(|@import\s*)["\']?(https?:)?//', sheet.read_text('utf-8')), sheet


def test_the_search_finds_what_people_look_for(site):
    pages = json.loads((site[0] / 'search/search_index.json').read_text())['docs']
    places = {'FAQ': 'faq', 'cite': 'faq', 'notebook': 'notebook', 'heatmap': 'attention', 'saliency': 'attention'}
    places |= {'RAN': 'resattn', 'ABN': 'abn', 'LTPA': 'pay_attention', 'install': 'index'}
    for word, page in places.items():
        found = {entry['location'] for entry in pages if re.search(rf'\b{word}\b', entry['title'] + entry['text'])}
        assert any(location.startswith(f'{page}.html') for location in found), word


def code_blocks():
    """Page and text of every block of Python."""
    for page in (ROOT / 'README.md', *DOCS.glob('*.md')):
        for code in re.findall(r'(?ms)^```python[^\n]*\n(.*?)^```', page.read_text()):
            yield page.name, code


def test_blocks_of_code_name_what_there_is():
    """What blocks import is there, and a type in a config is registered; some blocks also run, in the tests below."""
    registered = {
        key
        for registry in vars(root).values()
        if isinstance(registry, root.Registry)
        for part in (registry, *registry.children.values())
        for key in part.module_dict
    }
    blocks = list(code_blocks())
    assert len(blocks) > 40
    for page, code in blocks:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith(('mmresattn', 'mmpretrain')):
                for name in node.names:
                    pkgutil.resolve_name(f'{node.module}:{name.name}')
            elif isinstance(node, ast.keyword) and node.arg == 'type' and isinstance(node.value, ast.Constant):
                name = node.value.value.rpartition('.')[2]
                own = f"type='{name}'" in code and f'class {name}' in (DOCS / 'add_attention.md').read_text()
                assert name in registered or own, f'{page}: {name}'


def test_the_code_of_the_readme(monkeypatch, capsys, tmp_path):
    """As it stands there, on smaller images."""
    pytest.importorskip('timm')
    monkeypatch.chdir(ROOT)
    draw, tap = (code for page, code in code_blocks() if page == 'README.md')
    exec(draw.replace("'maps'", repr(str(tmp_path))), {})
    assert capsys.readouterr().out.rstrip().endswith('hat') and len([*tmp_path.rglob('*.png')]) == 1
    exec(tap.replace('224, 224', '64, 64'), {})
    assert 'stage1.attention1.map (2, 256, 16, 16)' in capsys.readouterr().out


def test_names_on_the_pages_are_in_the_package():
    for page in DOCS.glob('*.md'):
        for name in re.findall(r'`(mmresattn(?:\.\w+)+)', page.read_text()):
            pkgutil.resolve_name(name)


def test_what_is_linked_outside_of_docs_is_part_of_the_site(site):
    folder, pages = site
    assert 'source/configs/senet/index.html' in pages  # docs/tools.md links configs, whose page lists each folder
    assert 'source/configs/senet/se-resnet50_imagenet.py.html' in pages['senet.html'].links
    assert 'se-resnet50_imagenet.py.html' in pages['source/configs/senet/index.html'].links
    text = (folder / 'source/configs/senet/se-resnet50-caffe_imagenet.py.html').read_text()
    assert 'AttentionResNet' in text and 'caffe_pool' in text
    assert (folder / 'source/weights/attention56_cifar10_fast.safetensors').stat().st_size > 1e6


@pytest.mark.parametrize('page', ['README.md', 'CONTRIBUTING.md', *(f'docs/{path.name}' for path in DOCS.glob('*.md'))])
def test_links_of_the_repository(page):
    text = re.sub(r'(?ms)^```.*?^```|`[^`\n]+`', '', (ROOT / page).read_text())
    for link in re.findall(r'\]\((?!\w+:)([^)#\s]+)', text):
        assert (ROOT / page).parent.joinpath(link).exists(), f'{page} links {link}'


def documented_commands():
    """Page, script and arguments of every command line of a tool that is written down somewhere."""
    pages = [ROOT / 'README.md', ROOT / 'weights/README.md', *DOCS.glob('*.md')]
    folders = ('configs', 'tools', '.dev_scripts')
    for page in pages + [file for folder in folders for file in (ROOT / folder).rglob('*.[mp][dy]')]:
        text = re.sub(r'\\{1,2}\n', ' ', page.read_text())  # lines that go on
        text = re.sub(r'`[^`\n]+\n[^`\n]+`', lambda code: code[0].replace('\n', ' '), text)
        for line in re.findall(r'\bpython ((?:tools|\.dev_scripts)/[\w/]+\.py[^\n`]*)', text):
            script, *args = shlex.split(line, comments=True)
            if '...' not in args and 'def main(argv' in (ROOT / script).read_text():
                args = args[: min((args.index(end) for end in ('|', '&&', '>') if end in args), default=None)]
                yield page.relative_to(ROOT), script, ['1' if arg == 'TABLE' else arg for arg in args]


def test_commands_are_what_the_tools_take(monkeypatch):
    class Taken(Exception):
        pass

    parse = argparse.ArgumentParser.parse_known_args

    def taken(parser, args=None, namespace=None):
        raise Taken(parse(parser, args)[1])

    for name in ('parse_args', 'parse_known_args'):
        monkeypatch.setattr(argparse.ArgumentParser, name, taken)
    commands = list(documented_commands())
    assert len(commands) > 200 and len({script for _, script, _ in commands}) > 20
    for page, script, args in commands:
        where = f'{page}: {script} {" ".join(args)}'
        assert all((ROOT / arg).is_file() for arg in args if re.match(r'(configs|weights)/[\w/-]+\.\w+$', arg)), where
        try:
            importlib.import_module(script.removeprefix('.dev_scripts/')[:-3].replace('/', '.')).main(args)
        except Taken as found:
            assert found.args == ([],), where
        except SystemExit:
            pytest.fail(where)


@pytest.fixture(scope='module')
def figures():
    return runpy.run_path(str(ROOT / '.dev_scripts' / 'draw_figures.py'))


def test_figures_are_what_the_script_draws(figures, tmp_path, monkeypatch):
    there = {path.stem: path for path in (DOCS / 'images').glob('*.svg')}
    assert set(there) == set(figures['PICTURES'])
    pages = ''.join(path.read_text() for path in DOCS.glob('*.md'))
    for name, path in there.items():
        assert f'](images/{name}.svg)' in pages
        assert path.stat().st_size < 60 * 1024
        assert not re.search('<text|font-family|<image', path.read_text())
    if matplotlib.__version__ == re.search(r'matplotlib==([\d.]+)', read('requirements/constraints.txt'))[1]:
        monkeypatch.setattr(sys, 'argv', ['draw_figures.py', 'senet', 'abn', '--out', str(tmp_path)])
        with matplotlib.rc_context():
            figures['main']()
        for path in tmp_path.iterdir():
            assert path.read_text() == there[path.stem].read_text(), 'run .dev_scripts/draw_figures.py'


def test_pictures_are_what_their_commands_draw(tmp_path):
    script = runpy.run_path(str(ROOT / '.dev_scripts' / 'draw_pictures.py'))
    assert set(script['commands']()) >= {'see_flower', 'see_masks', 'see_hook', 'attention56_digits'}
    script['draw'](['see_flower'], tmp_path)  # by weights that are at hand; the others train
    drawn, shown = (np.asarray(Image.open(path / 'see_flower.png'), float) for path in (tmp_path, DOCS / 'images'))
    assert drawn.shape == shown.shape
    # Processors round differently; fonts and colours do not change.
    assert abs(drawn - shown).mean() < 1 < abs(drawn - drawn[::-1]).mean()


def test_tables_of_photographs_are_the_results():
    """Otherwise: python .dev_scripts/photos_tables.py --write"""
    script = runpy.run_path(str(ROOT / '.dev_scripts' / 'photos_tables.py'))
    page, results = script['PAGE'].read_text(), json.loads(script['RESULTS'].read_text())
    assert page == fill(page, script['tables'](results))
    results['accuracy'][0]['val'] = 12.25
    assert '| 12.25 % |' in fill(page, script['tables'](results))


def read(path):
    return (ROOT / path).read_text()


@pytest.mark.parametrize('name', ['attention_module', 'attention56', 'senet', 'nonlocal', 'aaconv', 'pay_attention',
                                  'abn', 'abn_bayesian', 'abn_multi_task'])  # fmt: skip
def test_boxes_stay_on_the_figure_and_apart(figures, name):
    picture = figures['PICTURES'][name]()
    assert {arrow.start for arrow in picture.arrows} | {arrow.end for arrow in picture.arrows} <= set(picture.boxes)
    boxes = list(picture.boxes.values())
    for i, box in enumerate(boxes):
        assert box.w / 2 <= box.x <= figures['WIDTH'] - box.w / 2 and box.h / 2 <= box.y <= picture.height - box.h / 2
        for other in boxes[:i]:
            apart = abs(box.x - other.x) >= (box.w + other.w) / 2 or abs(box.y - other.y) >= (box.h + other.h) / 2
            assert apart, (box.text, other.text)


def test_figure_of_attention56_is_the_network(figures):
    """Every shape on it, against the network on PyTorch's meta device."""
    boxes = figures['PICTURES']['attention56']().boxes
    with torch.device('meta'):
        model = ResidualAttentionNet('attention56')
        modules = dict(model.named_modules())
        shapes, sides = {}, {}
        for name in boxes:
            module = modules.get({'stem': 'stem.0', 'pool': 'stem'}.get(name, name))
            if module is not None:
                module.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
        for name in ('stage1.attention1', 'stage2.attention1', 'stage3.attention1'):
            mask = modules[f'{name}.mask']
            for part in (*mask.down, mask.bottom, *mask.up, mask.linear):
                part.register_forward_hook(
                    lambda _, __, out, name=name: sides.setdefault(name, []).append(out.shape[2])
                )
        model(torch.empty(1, 3, 224, 224))
    drawn = {name: tuple(map(int, re.findall(r'(?<!x)\b\d+\b(?!x)', box.text))) for name, box in boxes.items()}
    assert {name: drawn[name] for name in shapes} == shapes and len(shapes) == 11
    for name, levels in sides.items():
        boxes_of = [int(box.text) for key, box in boxes.items() if key.startswith(f'{name}.')]
        assert boxes_of[1:] == levels  # the first one is what comes in


@pytest.fixture
def conv_block_attention(tmp_path, monkeypatch):
    """The layer of docs/add_attention.md, imported as a reader would, and its config."""
    (layer,) = code_of('add_attention.md', 'conv_block_attention.py')
    (config,) = code_of('add_attention.md', 'cbam_digits.py')
    (tmp_path / 'conv_block_attention.py').write_text(layer)
    (tmp_path / 'cbam_digits.py').write_text(config.replace("'configs/", f"'{ROOT}/configs/"))
    monkeypatch.syspath_prepend(tmp_path)
    yield Config.fromfile(tmp_path / 'cbam_digits.py')  # imports the layer, as custom_imports say
    del MODELS.module_dict['ConvBlockAttention'], sys.modules['conv_block_attention']


def test_the_example_of_add_attention(conv_block_attention):
    lines = [line for code in code_of('add_attention.md') for line in code.splitlines()]
    assert len(lines) <= 60
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(conv_block_attention.model).eval()
    images = torch.rand(2, 3, 16, 16)
    layer = 'backbone.stage3.0.conv_block_attention'
    with record_attention(model) as maps:
        model(images)
    assert {name: tuple(map_.shape) for name, map_ in maps.items()} == {
        'backbone.stage2.0.conv_block_attention.channel_map': (2, 64, 1, 1),
        'backbone.stage2.0.conv_block_attention.spatial_map': (2, 1, 8, 8),
        'backbone.stage3.0.conv_block_attention.channel_map': (2, 128, 1, 1),
        'backbone.stage3.0.conv_block_attention.spatial_map': (2, 1, 4, 4),
    }
    text = (DOCS / 'add_attention.md').read_text()
    for name, map_ in maps.items():
        assert f'{name} {(64, *map_.shape[1:])}' in text  # as the page prints it, for 64 images

    # The formulas of the paper, written out for one image.
    module = model.get_submodule(layer)
    x = torch.randn(1, 128, 4, 4)
    first, _, second = module.mlp
    channel = torch.zeros(128)
    for pooled in (x[0].flatten(1).mean(1), x[0].flatten(1).max(1).values):
        hidden = (first.weight[:, :, 0, 0] @ pooled + first.bias).clamp(min=0)
        channel = channel + second.weight[:, :, 0, 0] @ hidden + second.bias
    weighed = x[0] * (1 / (1 + torch.exp(-channel)))[:, None, None]
    pooled = torch.nn.functional.pad(torch.stack([weighed.mean(0), weighed.max(0).values]), (3, 3, 3, 3))
    spatial = torch.stack([(pooled[:, i : i + 7, j : j + 7] * module.conv.weight[0]).sum() for i in range(4)
                           for j in range(4)]).view(4, 4)  # fmt: skip
    torch.testing.assert_close(module(x)[0], weighed / (1 + torch.exp(-spatial)))

    whole = model(images)
    with edit_attention(model, {f'{layer}.spatial_map': torch.zeros_like}):
        assert (model(images)[0] - whole[0]).abs().max() > 1e-6
    with edit_attention(module, {'channel_map': torch.ones_like, 'spatial_map': torch.ones_like}):
        torch.testing.assert_close(module(x), x)


def test_the_code_of_the_page_on_attention():
    """As it stands there, on smaller images."""
    names = {}
    for title in ('record_and_edit.py', 'edits.py'):
        (code,) = code_of('attention.md', title)
        exec(code.replace('torch.rand(2, 3, 224, 224)', 'torch.rand(1, 3, 64, 64)'), names)
    assert set(names['maps']) == {f'stage{i}.attention1.map' for i in (1, 2, 3)}
    whole = names['model'](names['images'])[0]
    for edited in ('without_mask', 'no_positions', 'only_here'):
        assert (names[edited][0] - whole).abs().max() > 1e-6


def test_the_code_of_the_first_page(monkeypatch, capsys):
    """As it stands there, on the initialised network."""
    monkeypatch.chdir(ROOT)
    names = {}
    for code in code_of('first_steps.md'):
        exec(code.replace("'work_dirs/attention56_digits/epoch_12.pth'", 'None'), names)
    out = capsys.readouterr().out
    assert "'backbone.stage1.attention1.map': (64, 64, 16, 16)" in out and re.search(
        r'^\d+ of 64 answers change$', out, re.M
    )


@pytest.mark.parametrize(
    ('name', 'config', 'kind'),
    [
        ('backbone.stage1.attention1.map', 'resattn/attention56_cifar10', 'mixed'),
        ('backbone.layer1.0.se_layer.map', 'senet/se-resnet50_imagenet', 'channel'),
        ('backbone.layer3.4.nonlocal_block.map', 'nonlocal/nonlocal-resnet50-1block_imagenet', 'pairwise'),
        ('backbone.layer2.0.conv2.map', 'aaconv/aa-resnet50_imagenet', 'pairwise'),
        ('neck.level1.map', 'pay_attention/vgg-att2-pc_cifar10', 'spatial'),
        ('backbone.stage2.gate.map', 'pay_attention/vgg-pan_cifar10', 'spatial'),
        ('neck.map', 'abn/abn-bayesian-resnet20_cifar100', 'spatial'),
        ('neck.maps.0', 'abn/abn-multitask_digits', 'spatial'),
    ],
)
def test_the_names_of_the_page_on_attention(name, config, kind):
    cfg = Config.fromfile(f'{ROOT}/configs/{config}.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        taps = attention_maps(MODELS.build(cfg.model))
    assert taps[name].kind == kind
    (row,) = [line for line in (DOCS / 'attention.md').read_text().splitlines() if f'| `{name}`' in line]
    assert f'| {kind}, (' in row


def test_the_config_for_ones_own_images(tmp_path, monkeypatch):
    (config,) = code_of('tools.md', 'mydata.py')
    rng = np.random.default_rng(0)
    for split in ('train', 'test'):
        for label in range(5):
            folder = tmp_path / 'mydata' / split / str(label)
            folder.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (40 + label, 70, 3), np.uint8)).save(folder / 'image.png')
    file = tmp_path / 'mydata.py'
    file.write_text(config.replace("'configs/", f"'{ROOT}/configs/"))
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(file)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            loader = Runner.build_dataloader({**loader, 'num_workers': 0, 'drop_last': False}, seed=0)
            assert len(loader.dataset) == 5 and loader.dataset.CLASSES == tuple('01234')
            batch = next(iter(loader))
            assert {tuple(image.shape) for image in batch['inputs']} == {(3, 64, 64)}
            losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
            assert losses['loss'].isfinite()


# What pages have said and the code does not do.
CONTRADICTED = {
    r'never (been )?published|nobody has published|none were ever published|No weights of .{,40} are published':
        'RAN\'s own authors published no weights; others did',
    r'\(suppressed\)': 'features are multiplied by 1 + mask: 0 leaves them unchanged',
    r'as true as Grad-CAM': 'not beyond the centre baseline',
    r'type=.SplitAttentionMap|one more channel of the image': 'the map has a key of its own',
    r"'setuptools<82' openmim": 'without --no-deps it downgrades setuptools, rich and requests',
}  # fmt: skip


def test_findings_K5_2_words_that_the_code_contradicts():
    globs = ('README.md', 'docs/**/*.md', 'configs/**/*.py', 'configs/**/*.md', 'mmresattn/**/*.py')
    for file in (file for pattern in globs for file in ROOT.glob(pattern)):
        text = re.sub(r'\s+', ' ', file.read_text())
        for words, why in CONTRADICTED.items():
            assert not re.search(words, text), f'{file}: {words} ({why})'


def test_findings_K5_2_the_mask_means_what_captions_say():
    """0 leaves features unchanged, 1 doubles them."""
    caption = re.sub(r'\s+', ' ', read('docs/first_steps.md'))
    assert 'multiplied by 1 + mask: dark (0) leaves them unchanged, bright (1) doubles them' in caption
    module = AttentionModule(16, 1).eval()
    x = torch.randn(1, 16, 4, 4)
    with torch.no_grad():
        trunk = module.trunk(module.before(x))
        for edit, factor in ((torch.zeros_like, 1), (torch.ones_like, 2)):
            with edit_attention(module, {'map': edit}):
                torch.testing.assert_close(module(x), module.after(factor * trunk))
