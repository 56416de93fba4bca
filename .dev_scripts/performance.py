"""What docs/performance.md shows: tools/benchmark.py with sets of cases, earlier commits and the growth of costs.

python .dev_scripts/performance.py --preset cpu --out work_dirs/cpu              # or gpu, resnet, scaling
python .dev_scripts/performance.py CONFIG --modes train train+commit=a06ee69     # beside an earlier version

With ``commit=HASH`` among the words of a mode, mmresattn is as it was at that commit.
"""

import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'tools'))

import benchmark  # noqa: E402

sys.path.pop(0)

RESATTN = 'configs/resattn/attention{}_imagenet.py'
CIFAR = 'configs/resattn/attention{}_cifar10.py'
FAST = 'channels_last+compile'
# What one command measures: groups of models, sizes, batches and modes that take turns.
PRESETS = {
    'cpu': [
        dict(
            models=[RESATTN.format(56), 'mmpretrain:resnet50_8xb32_in1k', 'timm:resnet50'], sizes=[224], batches=[8],
            modes=['eager', 'channels_last', 'channels_last+keep', FAST + '+keep', 'channels_last+keep+bfloat16',
                  FAST + '+keep+bfloat16'],
        ),
        # What the package did before and what it does, then modes on top; one model at a time for the memory of all.
        *(dict(
            models=[model], sizes=[224], batches=[4],
            modes=['train+channels_last+commit=a06ee69', 'train+commit=a06ee69', 'train+channels_last+keep',
                  'train+channels_last+keep+checkpointing', 'train+channels_last+keep+bfloat16',
                  'train+channels_last+keep+compile'],
        ) for model in (RESATTN.format(56), RESATTN.format(92))),
    ],
    # Masks on ResNet-50 beside ResNet-50 itself.
    'resnet': [
        dict(
            models=['configs/resattn/attention-resnet50_imagenet.py', 'mmpretrain:resnet50_8xb32_in1k'], sizes=[224],
            batches=[8], modes=['eager', 'channels_last+keep', FAST + '+keep', FAST + '+keep+bfloat16',
                               'train+channels_last+keep'],
        ),
    ],
    'gpu': [
        dict(
            models=[RESATTN.format(56), RESATTN.format(92), 'torchvision:resnet50', 'torchvision:resnet101'],
            sizes=[224], batches=[64],
            modes=[f'{mode}channels_last{dtype}{how}' for mode in ('', 'train+') for dtype in ('', '+tf32', '+bfloat16')
                  for how in ('', '+compile', '+graphs')],
        ),
        dict(
            models=[CIFAR.format(56), CIFAR.format(92)], sizes=[32], batches=[256],
            modes=[f'{mode}channels_last+{dtype}{how}' for mode in ('', 'train+') for dtype in ('tf32', 'bfloat16')
                  for how in ('', '+compile', '+graphs')],
        ),
    ],
    'scaling': [
        dict(axis='size', models=[RESATTN.format(56)], sizes=[64, 128, 256, 512, 1024], batches=[1],
             modes=['channels_last+keep', 'train+channels_last+keep']),
        dict(axis='batch', models=[RESATTN.format(56)], sizes=[128], batches=[1, 2, 4, 8, 16],
             modes=['channels_last+keep', 'train+channels_last+keep']),
        dict(axis='depth', models=[CIFAR.format(depth) for depth in (56, 92, 128, 164, 236)], sizes=[32], batches=[8],
             modes=['channels_last+keep', 'train+channels_last+keep']),
    ],
}  # fmt: skip


def split_commit(mode: str) -> tuple[str, str | None]:
    """A mode without its commit, and the commit."""
    words = mode.split('+')
    commits = [word.removeprefix('commit=') for word in words if word.startswith('commit=')]
    return '+'.join(word for word in words if not word.startswith('commit=')) or 'eager', next(iter(commits), None)


def work(connection, case: dict, threads: int, cpu_time: bool) -> None:
    """As that of the benchmark, with the package as it was at the commit of the mode."""
    mode, commit = split_commit(case['mode'])
    with tempfile.TemporaryDirectory() as folder:
        if commit:
            archive = subprocess.run(['git', 'archive', commit], cwd=ROOT, capture_output=True, check=True).stdout
            tarfile.open(fileobj=BytesIO(archive)).extractall(folder, filter='data')
            sys.path.insert(0, folder)  # before the first import of mmresattn
        benchmark.work(connection, {**case, 'mode': mode}, threads, cpu_time)


def exponent(x: list[float], y: list[float]) -> float:
    """The slope of log y over log x, by least squares: y grows as x to that power."""
    x, y = torch.tensor(x, dtype=torch.float64).log(), torch.tensor(y, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def depth(name: str) -> str:
    """The number in the name of a model: ``'92'`` of attention92_cifar10."""
    return ''.join(filter(str.isdigit, Path(name).stem.split('_')[0]))


def growth(axis: str, results: list[dict]) -> list[dict]:
    """How time and memory of each mode grow with pixels, batch or multiply-adds (for depth)."""
    of = dict(size=lambda r: r['size'] ** 2, batch=lambda r: r['batch'], depth=lambda r: r['flops'])[axis]
    mark = dict(size=lambda r: r['size'], batch=lambda r: r['batch'], depth=lambda r: depth(r['name']))[axis]
    found = []
    for mode in dict.fromkeys(r['mode'] for r in results):
        rows = sorted((r for r in results if r['mode'] == mode and 'error' not in r), key=of)
        x = [of(r) for r in rows]
        values = dict(time=[r['step_seconds']['median'] for r in rows], memory=[r['peak_bytes'] for r in rows])
        found += [
            dict(axis=axis, mode=mode, of=kind, marks=[mark(r) for r in rows], x=x, y=y, exponent=exponent(x, y))
            for kind, y in values.items()
            if len(rows) > 1
        ]
    return found


def plot(lines: list[dict], path: Path) -> None:
    """Time and memory over pixels, images and multiply-adds, both logarithmic, with their exponents."""
    import matplotlib

    matplotlib.use('agg')
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    axes = list(dict.fromkeys(line['axis'] for line in lines))
    names = dict(size='side of an image (pixels)', batch='images of a batch', depth='depth of the network')
    figure, panels = plt.subplots(2, len(axes), figsize=(4 * len(axes), 6), squeeze=False, layout='constrained')
    for row, (kind, unit) in enumerate((('time', 's a step'), ('memory', 'MiB'))):
        for panel, axis in zip(panels[row], axes):
            for line in lines:
                if (line['axis'], line['of']) == (axis, kind):
                    y = [value / (1 if kind == 'time' else 2**20) for value in line['y']]
                    kind_of_step = 'training' if 'train' in line['mode'] else 'inference'
                    x = [value / line['x'][0] for value in line['x']]  # a training step has three times the products
                    panel.loglog(x, y, 'o-', label=f'{kind_of_step}: exponent {line["exponent"]:.2f}')
                    panel.set_xticks(x, line['marks'], minor=False)
            panel.set(xlabel=names[axis], ylabel=f'{kind} ({unit})')
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.yaxis.set(
                major_locator=LogLocator(subs=(1, 2, 5)), major_formatter='{x:g}', minor_formatter=NullFormatter()
            )
            panel.legend(fontsize='small', frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv=None):
    parser = benchmark.make_parser()
    parser.add_argument('--preset', choices=list(PRESETS), help='a set of models and modes, instead of models')
    args = parser.parse_args(argv)
    if bool(args.models) == bool(args.preset):
        parser.error('Give either models or --preset.')
    for mode in args.modes:
        benchmark.parse_mode(split_commit(mode)[0])
    if args.preset == 'gpu' and not torch.cuda.is_available():
        raise SystemExit('--preset gpu needs a GPU that PyTorch can use; here is none. On this machine: --preset cpu.')
    torch.set_num_threads(args.threads)
    groups = PRESETS.get(args.preset) or [
        dict(models=args.models, sizes=args.size, batches=args.batch_size, modes=args.modes)
    ]
    facts = benchmark.machine()
    lines = [', '.join(f'{key}: {value}' for key, value in facts.items() if value), '']
    report = dict(machine=facts, rounds=args.rounds, groups=[], growth=[])
    for group in groups:
        axis = group.get('axis')
        cases = benchmark.cases_of(*(group[key] for key in ('models', 'sizes', 'batches', 'modes')))
        results = benchmark.measure(cases, args.rounds, args.seconds, args.threads, args.cpu_time, work)
        found = growth(axis, results) if axis else []
        report['groups'].append(results)
        report['growth'] += found
        lines.append(benchmark.table(results))
        lines += [f'{line["of"]} of {line["mode"]} over {axis}: exponent {line["exponent"]:.2f}' for line in found]
        print('\n'.join(lines), flush=True)
        if args.out:  # after every group: what is done is not lost
            benchmark.save(args.out, report, lines)
    if args.out and report['growth']:
        plot(report['growth'], Path(f'{args.out}.png'))


if __name__ == '__main__':
    from mmresattn.apis.command_line import run_tool

    run_tool(main)
