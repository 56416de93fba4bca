"""Measure the accuracy of classifiers under adversarial attacks (FGSM and PGD in the maximum norm).

python tools/analysis_tools/robustness.py configs/resattn/attention56_digits.py \\
    work_dirs/attention56_digits/epoch_12.pth --eps 0 1 2 4 8 --out work_dirs/robustness

More pairs of config and checkpoint may follow, for comparison. Writes robustness.csv, robustness.md and
robustness.png.
"""

import csv
from pathlib import Path

from matplotlib.figure import Figure
from mmengine.config import DictAction
from rich.console import Console
from rich.progress import track

from mmresattn.apis import load_classifier
from mmresattn.apis.command_line import ArgumentParser, markdown_table, print_table, run_tool
from mmresattn.evaluation import adversarial_accuracy
from mmresattn.evaluation.robustness import ATTACKS


def parse_args(argv=None):
    parser = ArgumentParser(description='Measure the accuracy of classifiers under adversarial attacks.')
    parser.add_argument('models', nargs='+', metavar='CONFIG CHECKPOINT', help='config and checkpoint files, in pairs')
    parser.add_argument(
        '--eps', type=float, nargs='+', default=[0, 1, 2, 4, 8], help='largest changes of a value, of 0..255'
    )
    parser.add_argument('--attacks', nargs='+', choices=ATTACKS, default=list(ATTACKS), help='default: both')
    parser.add_argument('--steps', type=int, default=10, help='steps of PGD; default: 10')
    parser.add_argument('--step-size', type=float, help='of PGD, of 0..255; default: 2.5 * eps / steps')
    parser.add_argument('--max-images', type=int, help='test on so many images, drawn by the seed; default: all')
    parser.add_argument('--seed', type=int, default=0, help="of the images and of PGD's random starts; default: 0")
    parser.add_argument('--out', type=Path, default=Path('.'), help='folder to write to; default: this one')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of configs: key=value')
    args = parser.parse_args(argv)
    if len(args.models) % 2:
        parser.error('every config needs its checkpoint: CONFIG CHECKPOINT [CONFIG2 CHECKPOINT2 ...].')
    args.models = list(zip(args.models[::2], args.models[1::2]))
    args.eps = sorted(set(args.eps))
    return args


def draw(rows, eps):
    """Accuracy against eps: a colour for each model, a line style for each attack."""
    figure = Figure(figsize=(7, 4 + 0.2 * len(rows)), layout='constrained')
    axis = figure.subplots()
    labels = list(dict.fromkeys(label for label, _, _ in rows))
    styles = dict(  # a dot still shows on a square
        fgsm=dict(linestyle='--', marker='s', markersize=8, markerfacecolor='white', zorder=2),
        pgd=dict(linestyle='-', marker='o', markersize=4, zorder=3),
    )
    for label, attack, accuracy in rows:
        color = f'C{labels.index(label)}'
        axis.plot(eps, [accuracy[e] for e in eps], color=color, label=f'{label}, {attack.upper()}', **styles[attack])
    axis.set(xlabel='eps (pixel values of 0..255)', ylabel='accuracy (%)', ylim=(-3, 103), xticks=eps)
    axis.grid(alpha=0.3)
    figure.legend(loc='outside lower center', fontsize=8)
    return figure


def main(argv=None):
    args = parse_args(argv)
    console = Console()
    # Everything is built before anything is measured: a wrong checkpoint is said at once.
    loaded = [load_classifier(*pair, args.cfg_options, args.max_images, args.seed) for pair in args.models]
    stems = [Path(config).stem for config, _ in args.models]
    labels = [
        stem if stems.count(stem) == 1 else f'{stem} ({checkpoint})'
        for stem, (_, checkpoint) in zip(stems, args.models)
    ]
    rows = []
    for label, (model, loader) in zip(labels, loaded):
        batches = track(loader, label, console=console)
        accuracies = adversarial_accuracy(
            model, batches, args.eps, args.attacks, args.steps, args.step_size, seed=args.seed
        )
        rows += [(label, attack, accuracy) for attack, accuracy in accuracies.items()]

    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / 'robustness.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['model', 'attack', 'eps', 'accuracy'])
        writer.writerows([label, attack, f'{e:g}', accuracy[e]] for label, attack, accuracy in rows for e in args.eps)
    header = ['model', 'attack', *(f'eps {e:g}' for e in args.eps)]
    cells = [[label, attack, *(f'{accuracy[e]:.2f}' for e in args.eps)] for label, attack, accuracy in rows]
    (args.out / 'robustness.md').write_text(markdown_table(header, cells, (0, 1)))
    draw(rows, args.eps).savefig(args.out / 'robustness.png', dpi=150)

    print_table('Accuracy (%) under attack, eps of 0..255', header, cells, (0, 1))
    console.print(f'robustness.csv, .md and .png written to {args.out}')


if __name__ == '__main__':
    run_tool(main)
