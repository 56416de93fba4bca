"""Measure how faithful attention maps are: deletion, insertion and ROAD, against Grad-CAM and maps of no knowledge.

python tools/analysis_tools/faithfulness.py configs/resattn/attention56_cifar10_fast.py \\
    weights/attention56_cifar10_fast.safetensors --max-images 100 --out work_dirs/faithfulness.md

A faithful map has a small area of deletion, a large one of insertion, and a large ROAD. With --masks, there are two
more measures: how often the most attended pixel is on the object (pointing), and the overlap of the object with the
most attended pixels, as many as it has (intersection over union).
"""

import json
import math
from pathlib import Path

import cv2
from mmengine.config import DictAction
from mmengine.dataset import default_collate
from rich.console import Console
from rich.progress import track

from mmresattn.apis import load_classifier
from mmresattn.apis.command_line import ArgumentParser, markdown_table, print_table, run_tool
from mmresattn.datasets.attention_maps import read_attention_map
from mmresattn.evaluation import faithfulness
from mmresattn.evaluation.faithfulness import BASELINES, MEASURES, PERCENTILES
from mmresattn.visualization import (
    CAM_METHODS,
    REDUCTIONS,
    batches_of_one_shape,
    data_set_root,
    data_set_sample,
    relative_name,
    short_name,
)


def parse_args(argv=None):
    parser = ArgumentParser(description='Measure how faithful attention maps are.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--layers', nargs='+', help='attention maps; default: all with positions')
    parser.add_argument('--reductions', nargs='+', choices=REDUCTIONS, default=REDUCTIONS[:1], help='of the channels')
    parser.add_argument('--split', choices=['test', 'val', 'train'], default='test', help='images to measure on')
    parser.add_argument(
        '--masks',
        type=Path,
        metavar='FOLDER',
        help='objects: white on black, FOLDER/<path of the image in the data set>.png; images may lack one',
    )
    parser.add_argument('--cams', nargs='*', choices=list(CAM_METHODS), default=['gradcam'], help='default: gradcam')
    parser.add_argument('--baselines', nargs='*', choices=BASELINES, default=BASELINES, help='maps of no knowledge')
    parser.add_argument('--max-images', type=int, default=100, help='images, drawn by the seed; 0 for all')
    parser.add_argument('--batch-size', type=int, default=25, help='images at once')
    parser.add_argument('--steps', type=int, default=32, help='steps of the curves; 0 to leave them out')
    parser.add_argument(
        '--percentiles', type=int, nargs='*', default=list(PERCENTILES), help='of ROAD; nothing to leave it out'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the images, random maps and noise; default: 0')
    parser.add_argument('--out', type=Path, help='file for the table, in Markdown, or for the numbers (.json)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of the config: key=value')
    return parser.parse_args(argv)


def summary(values):
    """Mean and its standard error."""
    return values.mean().item(), values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan


def read_masks(dataset, folder):
    """The object of each image, at the size that the network gets; None where there is no file."""
    root = data_set_root(dataset)
    masks = []
    for index in range(len(dataset)):
        sample = dataset[index]
        path = sample['data_samples'].get('img_path')
        file = folder / f'{relative_name(path, root)}.png' if path else folder
        mask = read_attention_map(file) if file.is_file() else None
        size = sample['inputs'].shape[:0:-1]  # width, height
        masks.append(None if mask is None else cv2.resize(mask, size, interpolation=cv2.INTER_AREA) > 0.5)
    if not any(mask is not None for mask in masks):
        raise FileNotFoundError(f'{folder} has no mask of an image, such as {file}.')
    return masks


def main(argv=None):
    args = parse_args(argv)
    console = Console()
    model, loader = load_classifier(
        args.config, args.checkpoint, args.cfg_options, args.max_images or None, args.seed, args.split
    )
    masks = args.masks and read_masks(loader.dataset, args.masks)
    indices = track(range(len(loader.dataset)), 'images', console=console)
    samples = (data_set_sample(loader.dataset, index) for index in indices)
    batches = (
        default_collate([sample.packed for sample in batch]) for batch in batches_of_one_shape(samples, args.batch_size)
    )
    found = faithfulness(
        model,
        batches,
        args.layers,
        reductions=args.reductions,
        cams=args.cams,
        steps=args.steps,
        percentiles=args.percentiles,
        seed=args.seed,
        baselines=args.baselines,
        masks=masks,
    )
    measures = [measure for measure in MEASURES if any(measure in values for values in found.values())]
    header = ['map', *(f'{measure} ({"less" if measure == "deletion" else "more"} is better)' for measure in measures)]
    rows = [
        [short_name(name), *('{:.3f} ± {:.3f}'.format(*summary(values[measure])) for measure in measures)]
        for name, values in found.items()
    ]
    with_mask = '' if masks is None else f', {sum(mask is not None for mask in masks)} of them with a mask'
    title = (
        f'{Path(args.config).stem}, {len(loader.dataset)} {args.split} images{with_mask}, {args.steps} steps, '
        f'percentiles {" ".join(map(str, args.percentiles))}, {" and ".join(args.reductions)} of the channels, seed '
        f'{args.seed}: mean ± standard error'
    )
    print_table(title, header, rows)
    if args.out:
        text = f'{title}:\n\n{markdown_table(header, rows)}'
        if args.out.suffix == '.json':
            maps = {name: {key: summary(value) for key, value in values.items()} for name, values in found.items()}
            text = json.dumps(dict(title=title, maps=maps), indent=1)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)
        console.print(f'written to {args.out}')


if __name__ == '__main__':
    run_tool(main)
