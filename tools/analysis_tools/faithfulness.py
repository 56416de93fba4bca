"""Measure how true attention maps are: deletion, insertion and ROAD, against Grad-CAM and maps that know nothing.

python tools/analysis_tools/faithfulness.py configs/resattn/attention56_cifar10_fast.py \\
    weights/attention56_cifar10_fast.safetensors --max-images 100 --out work_dirs/faithfulness.md

A true map has a small area of deletion, a large one of insertion, and a large ROAD.
"""

import math
from pathlib import Path

from mmengine.config import DictAction
from mmengine.dataset import default_collate
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mmresattn  # noqa: F401
from mmresattn.apis import load_classifier
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.evaluation import faithfulness
from mmresattn.evaluation.faithfulness import MEASURES, PERCENTILES
from mmresattn.visualization import CAM_METHODS, REDUCTIONS, batches_of_one_shape, data_set_sample, short_name


def parse_args(argv=None):
    parser = ArgumentParser(description='Measure how true attention maps are.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--layers', nargs='+', help='attention maps; default: all with positions')
    parser.add_argument(
        '--reduction', choices=REDUCTIONS, default=REDUCTIONS[0], help='of the channels; default: %(default)s'
    )
    parser.add_argument('--cams', nargs='*', choices=list(CAM_METHODS), default=['gradcam'], help='default: gradcam')
    parser.add_argument('--max-images', type=int, default=100, help='test images, drawn by the seed; default: 100')
    parser.add_argument('--batch-size', type=int, default=25, help='images at once; default: 25')
    parser.add_argument('--steps', type=int, default=32, help='steps of the curves; default: 32')
    parser.add_argument(
        '--percentiles', type=int, nargs='*', default=list(PERCENTILES), help='of ROAD; nothing to leave it out'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the images, random maps and noise; default: 0')
    parser.add_argument('--out', type=Path, help='file to write the table to, in Markdown')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of the config: key=value')
    return parser.parse_args(argv)


def cell(values):
    """Mean and its standard error."""
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f'{values.mean().item():.3f} ± {error:.3f}'


def main(argv=None):
    args = parse_args(argv)
    console = Console()
    model, loader = load_classifier(args.config, args.checkpoint, args.cfg_options, args.max_images, args.seed)
    indices = track(range(len(loader.dataset)), 'images', console=console)
    samples = (data_set_sample(loader.dataset, index) for index in indices)
    batches = (
        default_collate([sample.packed for sample in batch]) for batch in batches_of_one_shape(samples, args.batch_size)
    )
    found = faithfulness(
        model,
        batches,
        args.layers,
        reduction=args.reduction,
        cams=args.cams,
        steps=args.steps,
        percentiles=args.percentiles,
        seed=args.seed,
    )
    measures = [measure for measure in MEASURES if any(measure in values for values in found.values())]
    better = dict(deletion='less', insertion='more', road='more')
    header = ['map', *(f'{measure} ({better[measure]} is better)' for measure in measures)]
    rows = [[short_name(name), *(cell(values[measure]) for measure in measures)] for name, values in found.items()]
    images = len(next(iter(found.values()))['deletion'])
    title = (
        f'{Path(args.config).stem}, {images} test images, {args.steps} steps, {args.reduction} of the channels, seed '
        f'{args.seed}: mean ± standard error'
    )
    table = Table(title=title)
    for name in header:
        table.add_column(name, justify='left' if name == 'map' else 'right', overflow='fold')
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if args.out:
        rule = ['---', *['---:'] * len(measures)]
        lines = [f'| {" | ".join(line)} |' for line in (header, rule, *rows)]
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text('\n'.join([f'{title}:', '', *lines]) + '\n')
        console.print(f'written to {args.out}')


if __name__ == '__main__':
    run_tool(main)
