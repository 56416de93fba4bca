"""Count what the model index says of every config, and fill the tables of configs/*/README.md and docs/*.md from it.

docs/zoo.md is generated as a whole.

python .dev_scripts/model_index.py            # which files say something else
python .dev_scripts/model_index.py --write    # put it right
"""

import argparse
import functools
import os.path as osp
import re
import sys
from pathlib import Path

import torch
import yaml
from mmengine.config import Config
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mmresattn.apis import build_model
from mmresattn.apis.command_line import markdown_table
from mmresattn.utils import count_multiply_adds

ROOT = Path(__file__).parents[1]
MODEL = re.compile(r'(?m)^(?=  - Name: )')  # the models of a metafile, and its collections, start so
TABLE = re.compile(r'(?s)(?<=<!-- models -->\n).*?(?=<!-- end -->)')
LINK = re.compile(r'\]\(\.\./(configs/[^)]+\.py)\)')  # of a page in docs/
NUMBER = re.compile(r'(?<=^ )[\d.,]*\d')  # with which a cell begins
COUNTED = {}  # what is built alike is counted once
# The zoo's order; others follow.
FAMILIES = 'resattn senet nonlocal aaconv pay_attention abn captioning compare photos'.split()
FAMILIES += 'detection detection_branch segmentation'.split()
read = functools.cache(Config.fromfile)


class WithoutBatchNorm(TorchFunctionMode):
    """In this context BatchNorm passes its input on: it has no multiply-adds, and takes long on the meta device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0] if func is functional.batch_norm else func(*args, **(kwargs or {}))


def count(config: Path) -> dict[str, int]:
    """Parameters of a config's model, and the multiply-adds of its convolutions and products for one image.

    Args:
        config (Path): The config. Only one that says its ``image_size`` has multiply-adds.

    Returns:
        dict: ``Parameters``, and perhaps ``FLOPs``, which is what model indices call multiply-adds.
    """
    cfg = read(config)
    size = cfg.get('image_size')
    key = repr((cfg.model.to_dict(), size))
    if key not in COUNTED:
        with torch.device('meta'):
            model = build_model(cfg).eval()
            numbers = COUNTED[key] = dict(Parameters=sum(parameter.numel() for parameter in model.parameters()))
            if size:
                with WithoutBatchNorm():
                    numbers['FLOPs'] = count_multiply_adds(model, torch.empty(1, 3, size, size))
    return COUNTED[key]


def counted(metafile: Path) -> str:
    """The text of a metafile, its numbers counted anew."""

    def fill(block: str) -> str:
        config = re.search(r'(?m)^    Config: (.+)$', block)
        numbers = count(ROOT / config[1]) if config else {}
        for name, number in numbers.items():
            block = re.sub(rf'(?m)^      {name}: .*$', f'      {name}: {number}', block)
        return block

    return ''.join(map(fill, MODEL.split(metafile.read_text())))


def drawn_up(table: list[dict[str, str]]) -> str:
    """A table in Markdown, without empty columns."""
    columns = [name for name in table[0] if any(row[name] for row in table)]
    texts = [column for column, name in enumerate(columns) if name not in ('parameters', 'multiply-adds')]
    return markdown_table(columns, [[row[name] for name in columns] for row in table], texts)


def tabulated(metafile: Path) -> str:
    """The text of the README beside a metafile, its table drawn up from the metafile."""
    table = []
    for model in yaml.safe_load(metafile.read_text())['Models']:
        data = model['Metadata']
        here = [f'{name} {value}' for result in model['Results'] or [] for name, value in result['Metrics'].items()]
        for name in ('Weights', 'Training Log'):
            if '://' in model.get(name, ''):
                here.append(f"[MMPretrain's weights]({model[name]})")
            elif name in model:
                here.append(f'[{name.lower()}]({osp.relpath(ROOT / model[name], metafile.parent)})')
        table.append(
            {
                'config': f'[{model["Name"]}]({osp.relpath(ROOT / model["Config"], metafile.parent)})',
                'parameters': f'{data["Parameters"]:,}',
                'multiply-adds': f'{data["FLOPs"] / 1e9:.2f} G' if 'FLOPs' in data else '',
                'published by others': data.get('Published Results', ''),
                'measured here': ', '.join(here),
            }
        )
    readme = metafile.with_name('README.md')
    return TABLE.sub(lambda _: drawn_up(table), readme.read_text())


def metafiles() -> list[Path]:
    return sorted(ROOT.glob('configs/*/metafile.yml'))


def filled(page: Path) -> str:
    """The text of a page of docs/, the numbers in its tables those of the metafiles.

    In rows that link a config, the number with which a cell begins is filled in, in the columns *parameters*,
    *multiply-adds* and those that are named as a metric of its ``Results``, with as many digits as the page gives. What
    else a cell says, other columns and empty cells are the page's own.
    """
    models = {model['Config']: model for file in metafiles() for model in yaml.safe_load(file.read_text())['Models']}
    lines, header = page.read_text().split('\n'), None
    for i, line in enumerate(lines):
        if not line.startswith('|'):
            header = None
            continue
        cells = line.split('|')
        header = header or [cell.strip().lower() for cell in cells]
        link = LINK.search(line)
        if link and link[1] in models:
            values = figures(models[link[1]])
            for k, name in enumerate(header[: len(cells)]):
                if name in values:
                    cells[k] = NUMBER.sub(lambda found, value=values[name]: like(found[0], value), cells[k], count=1)
            lines[i] = '|'.join(cells)
    return '\n'.join(lines)


def nested(value):
    """All dicts within a config."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from nested(inner)


def start(config: Path) -> str:
    """Which weights a training begins with, as a cell of a table; empty for random ones."""
    cfg = read(config)
    parts = [part for part in nested(cfg.model.to_dict()) if 'checkpoint' in part]
    addresses = dict.fromkeys([*(part['checkpoint'] for part in parts), cfg.get('load_from') or ''])
    cells = []
    for address in addresses:
        if address is None:
            cells.append('a classifier that you name')
        elif address.startswith('https://'):
            cells.append(f'[{address.rpartition("/")[2].rpartition("_")[0]}]({address})')
        elif address.startswith('work_dirs/'):
            cells.append(f'{address.split("/")[1]}, trained before')
        elif address:
            cells.append(f'`{address.removesuffix(".safetensors")}`')
    return ', '.join(cells)


def zoo(page: Path) -> str:
    """The text of docs/zoo.md, drawn up from the metafiles and configs."""
    text = ''
    for metafile in sorted(metafiles(), key=lambda file: [*FAMILIES, file.parent.name].index(file.parent.name)):
        title = metafile.with_name('README.md').read_text().split('\n')[0].removeprefix('# ')
        table = []
        for model in yaml.safe_load(metafile.read_text())['Models']:
            data, results = model['Metadata'], model['Results'] or []
            network = f'[{model["Name"]}](../{model["Config"]})'
            size = f'{data["Parameters"] / 1e6:.2f} M'
            here = [
                f'{name} {value}{"" if name == "MAE" else " %"}'
                for result in results
                for name, value in result['Metrics'].items()
            ]
            here = [f'**measured here: {", ".join(here)}**'] if here else []
            here += [
                f'[{name.lower()}]({model[name] if "://" in model[name] else "../" + model[name]})'
                for name in ('Weights', 'Training Log')
                if name in model
            ]
            reported = [data[name] for name in ('Published Results', 'Other Ports') if name in data]
            tasks = ', '.join(result['Task'].removeprefix('Image ').lower() for result in results)
            table.append(
                {
                    'network': f'{network}<br>from {begin}' if (begin := start(ROOT / model['Config'])) else network,
                    'task': f'{tasks}: {data["Training Data"]}',
                    'parameters, multiply-adds': f'{size}, {data["FLOPs"] / 1e9:.2f} G' if 'FLOPs' in data else size,
                    'results': '<br>'.join(reported + ([', '.join(here)] if here else [])),
                }
            )
        text += f'\n## {title}\n\n{drawn_up(table)}'
    return TABLE.sub(lambda _: f'{text}\n', page.read_text())


def figures(model: dict) -> dict[str, float]:
    """What the tables of docs/ may say of a model, by the heading of the column."""
    data = model['Metadata']
    found = {'parameters': data['Parameters']}
    if 'FLOPs' in data:
        found['multiply-adds'] = data['FLOPs'] / 1e9
    for result in model['Results'] or []:
        found |= {name.lower(): value for name, value in result['Metrics'].items()}
    return found


def like(text: str, value: float) -> str:
    """A number with as many digits after the point as another."""
    return f'{value:,.{len(text.partition(".")[2])}f}'


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--write', action='store_true', help='write what is counted into the files')
    write = parser.parse_args().write
    wrong = False
    makes = [(file, counted, file) for file in metafiles()]
    makes += [(file.with_name('README.md'), tabulated, file) for file in metafiles()]
    makes += [(page, filled, page) for page in sorted(ROOT.glob('docs/*.md')) if page.name != 'zoo.md']
    makes.append((ROOT / 'docs/zoo.md', zoo, ROOT / 'docs/zoo.md'))
    for file, make, source in makes:
        text = make(source)
        if text != file.read_text():
            print(file.relative_to(ROOT), 'is written anew' if write else 'says something else than the code')
            if write:
                file.write_text(text)
            else:
                wrong = True
    sys.exit(wrong)


if __name__ == '__main__':
    main()
