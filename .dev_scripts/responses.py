"""Measure and draw the mean absolute response of every stage and attention module (paper, figure 4).

python .dev_scripts/responses.py \\
    --net residual configs/resattn/attention56_digits.py work_dirs/residual/epoch_12.pth \\
    --net naive naive_digits.py work_dirs/naive/epoch_12.pth --net new configs/resattn/attention56_digits.py none

Writes responses.csv (every block), responses.md (stages and attention modules) and responses.png. Responses are also
given relative to the first stage of their network. `none` in place of a checkpoint is the initialised network; its
BatchNorm statistics are taken from the images.
"""

import csv
import math
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from mmengine.config import DictAction
from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import mmresattn  # noqa: F401
from mmresattn.apis import load_classifier
from mmresattn.apis.command_line import ArgumentParser, markdown_table, print_table, run_tool


def parse_args(argv=None):
    parser = ArgumentParser(description='Measure the mean absolute response of stages and attention modules.')
    parser.add_argument(
        '--net',
        nargs=3,
        action='append',
        required=True,
        metavar=('LABEL', 'CONFIG', 'CHECKPOINT'),
        help='a network and its name in the figure; may be repeated; "none" as checkpoint: the initialised network',
    )
    parser.add_argument('--max-images', type=int, help='use so many test images, drawn by the seed; default: all')
    parser.add_argument('--seed', type=int, default=0, help='of the images and of initialised networks; default: 0')
    parser.add_argument('--out', type=Path, default=Path('.'), help='folder to write to; default: this one')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of configs: key=value')
    args = parser.parse_args(argv)
    labels = [label for label, _, _ in args.net]
    if len(set(labels)) < len(labels):
        parser.error(f'labels of --net must differ; got {labels}.')
    return args


def measure(label, config, checkpoint, args, console):
    new = checkpoint == 'none'
    model, loader = load_classifier(config, None if new else checkpoint, args.cfg_options, args.max_images, args.seed)
    if new:  # without statistics BatchNorm changes nothing, and each unit would double the response
        update_bn((model.data_preprocessor(batch)['inputs'] for batch in loader), model)
    return stage_responses(model, track(loader, label, console=console))


def stage_responses(model: nn.Module, loader: Iterable[dict]) -> dict[str, float]:
    """Mean of ``|x|`` over images, channels and positions, summed in float64, of the output of every block and stage.

    Blocks are named ``stageK.<block>``: the units and attention modules of ResidualAttentionNet. A stage stands after
    its blocks and has the response of its last one: the raw sum, before any normalisation that follows the stage.
    """
    blocks = {name: block for name, block in model.backbone.named_modules() if re.fullmatch(r'stage\d+\.[^.]+', name)}
    if not blocks:
        raise ValueError(
            f'{type(model.backbone).__name__} has no blocks named stageK.<block>, as those of ResidualAttentionNet are.'
        )
    sums, counts = dict.fromkeys(blocks, 0.0), dict.fromkeys(blocks, 0)

    def watch(name):
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            sums[name] += output.double().abs().sum().item()  # N, C, H, W
            counts[name] += output.numel()

        return hook

    handles = [block.register_forward_hook(watch(name)) for name, block in blocks.items()]
    with torch.no_grad():
        for batch in loader:
            model(model.data_preprocessor(batch)['inputs'])
    for handle in handles:
        handle.remove()
    responses = {}
    for name in blocks:
        stage = name.rpartition('.')[0]
        responses.pop(stage, None)  # of an earlier block: a stage stands after its last
        responses[name] = responses[stage] = sums[name] / counts[name]
    return responses


def order(name):
    """Attention modules by stage and place, then the stage."""
    stage, _, module = name.partition('.attention')
    return int(stage.removeprefix('stage')), int(module) if module else math.inf


def draw(measured):
    """Response relative to the first stage after each block; every stage has the same width, whatever its blocks."""
    figure = Figure(figsize=(8, 4.5), layout='constrained')
    axis = figure.subplots()
    for label, responses in measured.items():
        stages = [name for name in responses if '.' not in name]
        points = []
        for k, stage in enumerate(stages):
            blocks = [name for name in responses if name.startswith(f'{stage}.')]
            points += [(k + i / len(blocks), name) for i, name in enumerate(blocks, 1)]
        x, y = [x for x, _ in points], [responses[name] / responses['stage1'] for _, name in points]
        (line,) = axis.plot(x, y, label=label, linewidth=1.2)
        modules = [i for i, (_, name) in enumerate(points) if '.attention' in name]
        axis.plot([x[i] for i in modules], [y[i] for i in modules], 'o', color=line.get_color(), markersize=5)
        ends = [responses[stage] / responses['stage1'] for stage in stages]
        axis.plot(range(1, len(stages) + 1), ends, 's', color=line.get_color(), markersize=8, markerfacecolor='white')
    n = max(len([name for name in responses if '.' not in name]) for responses in measured.values())
    for boundary in range(1, n):
        axis.axvline(boundary, color='grey', linewidth=0.8, linestyle=':')
    axis.set_xticks([k + 0.5 for k in range(n)], [f'stage {k + 1}' for k in range(n)])
    axis.tick_params(axis='x', length=0)
    axis.set(xlim=(0, n + 0.05), yscale='log', ylabel='mean |response| / that of stage 1')
    axis.grid(axis='y', which='both', alpha=0.3)
    axis.plot([], [], 'o', color='grey', markersize=5, label='after an attention module')
    axis.plot([], [], 's', color='grey', markersize=8, markerfacecolor='white', label='output of a stage')
    figure.legend(loc='outside lower center', ncols=3, fontsize=8)
    return figure


def main(argv=None):
    args = parse_args(argv)
    console = Console()
    MMLogger.get_current_instance().setLevel('WARNING')  # an initialised network would list all its weights
    measured = {label: measure(label, config, checkpoint, args, console) for label, config, checkpoint in args.net}

    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / 'responses.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['net', 'block', 'response', 'normalised'])
        for label, responses in measured.items():
            writer.writerows([label, name, value, value / responses['stage1']] for name, value in responses.items())
    names = {
        name for responses in measured.values() for name in responses if re.fullmatch(r'[^.]+|.+\.attention\d+', name)
    }
    header = ['output', *measured]
    cells = []
    for name in sorted(names, key=order):
        values = [f'{r[name] / r["stage1"]:.3g} ({r[name]:.3g})' if name in r else '' for r in measured.values()]
        cells.append([name, *values])
    title = 'Mean absolute response, relative to stage 1 (and as it is)'
    (args.out / 'responses.md').write_text(f'{title}:\n\n{markdown_table(header, cells)}')
    draw(measured).savefig(args.out / 'responses.png', dpi=150)

    print_table(title, header, cells)
    console.print(f'responses.csv, .md and .png written to {args.out}')


if __name__ == '__main__':
    run_tool(main)
