"""Count what the model index says of every config, and draw up the tables of configs/*/README.md from it.

python .dev_scripts/model_index.py            # which files say something else
python .dev_scripts/model_index.py --write    # put it right
"""

import argparse
import os.path as osp
import re
import sys
from pathlib import Path

import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

import mmresattn  # noqa: F401

ROOT = Path(__file__).parents[1]
MODEL = re.compile(r'(?m)^(?=  - Name: )')  # the models of a metafile, and its collections, start so
TABLE = re.compile(r'(?s)(?<=<!-- models -->\n).*?(?=<!-- end -->)')
COUNTED = {}  # what is built alike is counted once


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
    cfg = Config.fromfile(config)
    size = cfg.get('image_size')
    key = repr((cfg.model.to_dict(), size))
    if key not in COUNTED:
        with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
            model = MODELS.build(cfg.model).eval()
            numbers = COUNTED[key] = dict(Parameters=sum(parameter.numel() for parameter in model.parameters()))
            if size:
                with FlopCounterMode(display=False) as counter, WithoutBatchNorm(), torch.no_grad():
                    model(torch.empty(1, 3, size, size))
                numbers['FLOPs'] = counter.get_total_flops() // 2
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


def tabulated(metafile: Path) -> str:
    """The text of the README beside a metafile, its table drawn up from the metafile."""
    rows = [
        '| config | parameters | multiply-adds | published by others | measured here |',
        '| --- | ---: | ---: | --- | --- |',
    ]
    for model in yaml.safe_load(metafile.read_text())['Models']:
        data = model['Metadata']
        here = [f'{name} {value}' for result in model['Results'] or [] for name, value in result['Metrics'].items()]
        for name in ('Weights', 'Training Log'):
            if '://' in model.get(name, ''):
                here.append(f"[MMPretrain's weights]({model[name]})")
            elif name in model:
                here.append(f'[{name.lower()}]({osp.relpath(ROOT / model[name], metafile.parent)})')
        rows.append(
            '| {} | {:,} | {} | {} | {} |'.format(
                f'[{model["Name"]}]({osp.relpath(ROOT / model["Config"], metafile.parent)})',
                data['Parameters'],
                f'{data["FLOPs"] / 1e9:.2f} G' if 'FLOPs' in data else '',
                data.get('Published Results', ''),
                ', '.join(here),
            )
        )
    readme = metafile.with_name('README.md')
    return TABLE.sub(lambda _: '\n'.join(rows) + '\n', readme.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--write', action='store_true', help='write what is counted into the files')
    write = parser.parse_args().write
    wrong = False
    for metafile in sorted(ROOT.glob('configs/*/metafile.yml')):
        for file, make in ((metafile, counted), (metafile.with_name('README.md'), tabulated)):
            text = make(metafile)
            if text != file.read_text():
                print(file.relative_to(ROOT), 'is written anew' if write else 'says something else than the code')
                if write:
                    file.write_text(text)
                else:
                    wrong = True
    sys.exit(wrong)


if __name__ == '__main__':
    main()
