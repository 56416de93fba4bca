"""Fill the tables of docs/compare.md from the metafiles, configs/*/results.json and the networks themselves.

python .dev_scripts/compare_tables.py            # says whether the page is what the results say
python .dev_scripts/compare_tables.py --write    # writes the tables
"""

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from page_tables import write_or_check

import mmresattn  # noqa: F401
from mmresattn.apis.command_line import markdown_table
from mmresattn.models.layers import attention_maps

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'compare.md'
PLAIN = 'wrn16-2_cifar10'
PHOTOS = 'plain_efficientnet-lite0'


class System(NamedTuple):
    """A row: where the facts of a system of attention are found."""

    name: str
    page: str  # of docs/
    part: str  # what a config names
    family: str  # folder of configs whose metafile names the paper
    compare: str = ''  # config of configs/compare
    photos: str = ''  # config of configs/photos
    config: str = ''  # another one, by its folder and name


SYSTEMS = (
    System('Residual Attention', 'resattn', 'ResidualAttentionNet', 'resattn', compare='attention56-short_cifar10'),
    System(
        '... around any backbone', 'pretrained', 'ResidualAttention', 'resattn',
        photos='residual-attention_efficientnet-lite0',
    ),
    System(
        'Attention Branch', 'abn', 'AttentionBranchNetwork', 'abn', compare='abn-wrn16-2_cifar10',
        photos='clothing_abn_efficientnet-lite0',
    ),
    System(
        '... Bayesian', 'abn', 'BayesianAttentionBranchNetwork', 'abn', compare='abn-bayesian-wrn16-2_cifar10'
    ),
    System('... of several tasks', 'abn', 'MultiTaskAttentionBranchHead', 'abn', config='abn/abn-multitask_digits'),
    System(
        'Learn To Pay Attention', 'pay_attention', 'PayAttentionNetwork', 'pay_attention',
        compare='pay-wrn16-2_cifar10', photos='pay-attention_efficientnet-lite0',
    ),
    System(
        'its baseline PAN', 'pay_attention', 'PayAttentionNet', 'pay_attention', config='pay_attention/vgg-pan_cifar10'
    ),
    System('Squeeze-and-Excitation', 'senet', 'SqueezeExcitation', 'senet', compare='se-wrn16-2_cifar10'),
    System('Non-local', 'nonlocal', 'NonLocalAttention', 'nonlocal', compare='nonlocal-wrn16-2_cifar10'),
    System(
        'Attention-augmented convolution', 'aaconv', 'AttentionAugmentedConv', 'aaconv', compare='aa-wrn16-2_cifar10'
    ),
    System('Transformers', 'transformers', 'VisionTransformer and others', ''),
)  # fmt: skip
# Whether a person can correct a map depends on what it is.
CORRECTED = {
    'spatial': 'yes',
    'mixed': 'all channels at once',
    'channel': 'a factor per channel',
    'pairwise': 'one query at a time',
}


@cache
def read(file: str) -> dict:
    path = ROOT / file
    if not path.exists():
        return {}
    return json.loads(path.read_text()) if path.suffix == '.json' else yaml.safe_load(path.read_text())


@cache
def model_of(name: str) -> dict:
    """What the metafiles say of a config, by its name."""
    files = sorted(ROOT.glob('configs/*/metafile.yml'))
    return next(
        model for file in files for model in read(str(file.relative_to(ROOT)))['Models'] if model['Name'] == name
    )


def top1(name: str) -> str:
    value = model_of(name)['Results'][0]['Metrics'].get('Top 1 Accuracy')
    return '' if value is None else f'{value:.2f} %'


def multiply_adds(name: str) -> str:
    return f'{model_of(name)["Metadata"]["FLOPs"] / 1e9:.3f} G'


def measured(value: list[float] | None) -> str:
    return f'{value[0]:.3f} ± {value[1]:.3f}' if value else ''


@cache
def maps(name: str) -> Counter:
    """How many maps of each kind the network of a config has."""
    cfg = Config.fromfile(ROOT / model_of(name)['Config'])
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        return Counter(tap.kind for tap in attention_maps(MODELS.build(cfg.model)).values())


def evidence(system: System, results: dict, photos: dict) -> str:
    """Figures of a system's most faithful map, each beside that of the centre baseline."""
    cells = []
    if rows := [row for row in results['faithfulness'] if row['config'] == system.compare]:
        best, centre = max(row['road'] for row in rows), results['road_of_others'][system.compare]['centre']
        cells.append(f'ROAD {measured(best)} (centre {centre[0]:.3f})')
    rows = {row['map']: row for row in photos['faithfulness'] if row['network'] == system.photos}
    if own := [row for name, row in rows.items() if name not in ('Grad-CAM', 'centre', 'random')]:
        best = max(row['pointing'][0] for row in own)
        cells.append(f'on the garment {best:.1%} (centre {rows["centre"]["pointing"][0]:.1%})')
    return '<br>'.join(cells)


def accuracy(system: System) -> str:
    """Accuracy beside that of the plain network with the same budget."""
    pairs = [(system.compare, PLAIN), (system.photos, PHOTOS)]
    return '<br>'.join(f'{top1(own)} ({top1(plain)})' for own, plain in pairs if own and top1(own))


def systems(results: dict, photos: dict) -> str:
    """One row for each system."""
    header = (
        'system', 'part', 'paper', 'maps', 'does its map lie on the evidence?', 'top 1 accuracy (plain)',
        'multiply-adds (plain)', 'per image (plain)', 'correctable',
    )  # fmt: skip
    rows, speeds = [], results['speed']
    for system in SYSTEMS:
        paper = read(f'configs/{system.family}/metafile.yml')['Collections'][0]['Paper'] if system.family else None
        config = system.compare or system.photos or system.config.rpartition('/')[2]
        kinds = maps(config) if config else Counter(pairwise=0)
        plain = PLAIN if system.compare else PHOTOS
        beside = system.compare or system.photos  # which have a plain network beside them
        cost = f'{multiply_adds(beside)} ({multiply_adds(plain)})' if beside else ''
        times = [1000 / speeds[name]['test'] for name in (system.compare, PLAIN) if name in speeds]
        row = (
            f'[{system.name}]({system.page}.md)',
            f'`{system.part}`' if system.family else system.part,
            f'[arXiv:{paper["URL"].rpartition("/")[2]}]({paper["URL"]})' if paper else '',
            ', '.join(f'{number} {kind}' if number else kind for kind, number in kinds.items()),
            evidence(system, results, photos),
            accuracy(system),
            cost,
            f'{times[0]:.1f} ms ({times[1]:.1f} ms)' if len(times) == 2 else '',
            ', '.join(CORRECTED[kind] for kind in kinds),
        )
        rows.append(row)
    return markdown_table(header, rows, range(9))


def faithfulness(results: dict) -> str:
    """Measures of each map of configs/compare, with standard errors."""
    header = ('network', 'map', 'deletion', 'insertion', 'ROAD', "Grad-CAM's", "the centre's")
    names = {system.compare: system.name for system in SYSTEMS}
    rows, last = [], None
    for row in results['faithfulness']:
        others = results['road_of_others'][row['config']] if row['config'] != last else {}
        cells = (
            names[row['config']] if row['config'] != last else '',
            row['map'],
            *(measured(row[name]) for name in ('deletion', 'insertion', 'road')),
            *(measured(others.get(name)) for name in ('gradcam', 'centre')),
        )
        rows.append(cells)
        last = row['config']
    return markdown_table(header, rows, (0, 1))


def tables(results: dict, photos: dict) -> dict[str, str]:
    """The tables of the page from the results of configs/compare and configs/photos."""
    return dict(systems=systems(results, photos), faithfulness=faithfulness(results))


if __name__ == '__main__':
    write_or_check(PAGE, tables(read('configs/compare/results.json'), read('configs/photos/results.json')), __doc__)
