"""Re-run a table of "Residual Attention Network for Image Classification" and hold the figures beside the paper's.

python tools/experiments.py 3                                   # the paper's recipe: 160,000 iterations a row
python tools/experiments.py 3 --scale short --amp --rows attention56   # minutes a row

Rows that are finished are skipped, and a row that was interrupted goes on where it stood: run the same command again.
A row that fails is reported and loses no other.
"""

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mmengine
from mmengine.config import Config
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / 'configs/resattn'


@dataclass(frozen=True)
class Row:
    """One figure of a table: what it is called, the paper's error in per cent, and the config (None: not in here)."""

    name: str
    paper: float
    config: str | None


def _noise(percent: int, resnet: float, attention: float) -> list[Row]:
    return [
        Row(f'ResNet-164, {percent} % noise', resnet, f'ablations/resnet164_noise{percent}_cifar10'),
        Row(f'Attention-92, {percent} % noise', attention, f'ablations/attention92_noise{percent}_cifar10'),
    ]


def _learning(depth: int, residual: float, naive: float) -> list[Row]:
    return [
        Row(f'Attention-{depth}, attention residual learning', residual, f'attention{depth}_cifar10'),
        Row(f'Attention-{depth}, naive attention learning', naive, f'ablations/attention{depth}_naive_cifar10'),
    ]


def _both(name: str, cifar10: float, cifar100: float, config: str | None) -> list[Row]:
    return [
        Row(f'{name}, CIFAR-{classes}', paper, config and f'{config}_cifar{classes}')
        for classes, paper in ((10, cifar10), (100, cifar100))
    ]


TABLES = {
    1: (
        'Activation of the mask, Attention-56',
        [
            Row('mixed attention (f1)', 5.52, 'attention56_cifar10'),
            Row('channel attention (f2)', 6.24, 'ablations/attention56_channel_cifar10'),
            Row('spatial attention (f3)', 6.33, 'ablations/attention56_spatial_cifar10'),
        ],
    ),
    3: (
        'Attention residual learning',
        [
            *_learning(56, 5.52, 5.89),
            *_learning(92, 4.99, 5.35),
            *_learning(128, 4.44, 5.57),
            *_learning(164, 4.31, 7.18),
        ],
    ),
    4: (
        'Structure of the mask, Attention-56',
        [
            Row('encoder-decoder', 5.52, 'attention56_cifar10'),
            Row('local convolutions, of equal FLOPs', 6.48, 'ablations/attention56_local-conv-equal-flops_cifar10'),
            Row('local convolutions, of full width', 6.48, 'ablations/attention56_local-conv_cifar10'),
        ],
    ),
    5: (
        'Label noise',
        [*_noise(10, 5.93, 5.15), *_noise(30, 6.61, 5.79), *_noise(50, 8.35, 7.27), *_noise(70, 17.21, 15.75)],
    ),
    6: (
        'Comparison on CIFAR-10 and CIFAR-100',
        [
            *_both('ResNet-164', 5.46, 24.33, 'ablations/resnet164'),
            *_both('ResNet-1001', 4.64, 22.71, None),
            *_both('WRN-16-8', 4.81, 22.07, None),
            *_both('WRN-28-10', 4.17, 20.50, None),
            *_both('Attention-92', 4.99, 21.71, 'attention92'),
            *_both('Attention-236', 4.14, 21.16, 'attention236'),
            *_both('Attention-452', 3.90, 20.45, 'attention452'),
        ],
    ),
}
FULL = 160_000  # iterations of 64 images
SCALES = {'full': dict(iterations=FULL, seeds=[0]), 'short': dict(iterations=1_560, seeds=[0, 1])}
WHOLE = 50_000  # training images of both CIFARs


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', type=int, choices=list(TABLES), help='table of the paper')
    parser.add_argument(
        '--scale', choices=list(SCALES), default='full', help="full: the paper's iterations; short: 1,560, two seeds"
    )
    parser.add_argument('--iterations', type=int, help="instead of the scale's; the rate drops at 40 %% and 60 %%")
    parser.add_argument('--seeds', type=int, nargs='+', help="instead of the scale's")
    parser.add_argument('--rows', nargs='+', default=[''], help='only configs whose names contain one of these')
    parser.add_argument('--data', help='folder that holds cifar10/ and cifar100/; default: $MMRESATTN_DATA or data')
    parser.add_argument('--work-dir', help='default: work_dirs/experiments/<scale>; tables share the runs in it')
    parser.add_argument('--amp', action='store_true', help='mixed precision; on CPUs in bfloat16')
    args = parser.parse_args(argv)
    if args.iterations is not None and args.iterations < 5:
        parser.error('--iterations: at least 5.')
    return args


def finished(work_dir: Path) -> float | None:
    """The test error of a run in per cent, None if it is not at its end yet."""
    metrics = work_dir / 'metrics.json'
    return 100 - mmengine.load(metrics)['accuracy/top1'] if metrics.exists() else None


def run(config: Path, work_dir: Path, seed: int, settings: dict, on_step: Callable[[int], None]) -> None:
    """Train and test one network, each as a process of its own: its end, of whatever kind, is no end of the others.

    Raises:
        RuntimeError: If one fails; with the last line of its log.
    """
    iterations = settings['iterations']
    checkpoint = work_dir / f'iter_{iterations}.pth'
    options = [
        f'randomness.seed={seed}',
        f'train_cfg.max_iters={iterations}',
        f'param_scheduler.milestones=[{iterations * 2 // 5},{iterations * 3 // 5}]',
        f'default_hooks.checkpoint.interval={min(4_000, max(1, iterations // 10))}',
        'default_hooks.checkpoint.max_keep_ckpts=2',
        f'default_hooks.logger.interval={min(100, max(1, iterations // 50))}',
    ]
    train = ['tools/train.py', config, '--work-dir', work_dir, '--resume', '--no-validate', '--cfg-options', *options]
    # The test images choose nothing: they are looked at once, at the end.
    test = ['tools/test.py', config, checkpoint, '--work-dir', work_dir / 'test']
    test += ['--out', work_dir / 'metrics.json', '--out-item', 'metrics']
    work_dir.mkdir(parents=True, exist_ok=True)
    if not checkpoint.exists():
        process([*train, *(['--amp'] if settings['amp'] else [])], work_dir / 'train.log', settings['data'], on_step)
    process(test, work_dir / 'test.log', settings['data'], on_step)


def process(command: list, log: Path, data: str, on_step: Callable[[int], None]) -> None:
    """Run one of our tools, and pass on how far it is."""
    child = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, 'MMRESATTN_DATA': data, 'PYTHONPATH': str(ROOT)},
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    last = ''
    try:
        with open(log, 'a') as file:
            for line in child.stdout:
                file.write(line)
                file.flush()
                last = line.strip() or last
                if step := re.search(r'Iter\(train\) *\[ *(\d+)/', line):
                    on_step(int(step[1]))
    finally:
        child.terminate()  # of no effect on one that ended
        child.wait()
    if child.returncode:
        raise RuntimeError(f'{last} (see {log})')


def runs_of(rows: list[Row], settings: dict, work_dir: Path, console: Console) -> tuple[dict, dict]:
    """Runs what is not finished. Errors by (config, seed), and failures by config."""
    configs = list(dict.fromkeys(row.config for row in rows if row.config))
    todo = [(config, seed) for seed in settings['seeds'] for config in configs]
    errors, failures = {}, {}
    columns = [TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=console) as progress:
        overall = progress.add_task('runs', total=len(todo))
        for config, seed in todo:
            run_dir = work_dir / Path(config).name / f'seed{seed}'
            error = finished(run_dir)
            if error is None:
                current = progress.add_task(f'{config}, seed {seed}', total=settings['iterations'])
                try:
                    run(
                        CONFIGS / f'{config}.py',
                        run_dir,
                        seed,
                        settings,
                        lambda step, task=current: progress.update(task, completed=step),
                    )
                    error = finished(run_dir)
                except (RuntimeError, OSError) as failure:
                    failures[config] = str(failure)
                    console.print(f'{config}, seed {seed} failed: {failure}', style='red', markup=False, soft_wrap=True)
                progress.remove_task(current)
            if error is not None:
                errors[config, seed] = error
            progress.advance(overall)
    return errors, failures


def ranks(values: list[float | None]) -> list[str]:
    """Places from the lowest error, 1, up; '-' where there is none."""
    known = sorted(value for value in values if value is not None)
    return ['-' if value is None else str(known.index(value) + 1) for value in values]


def report(table: int, rows: list[Row], errors: dict, failures: dict, settings: dict) -> str:
    """The table in Markdown, with the paper's column beside ours."""
    title, _ = TABLES[table]
    seeds = settings['seeds']
    ours = [[errors[row.config, seed] for seed in seeds if (row.config, seed) in errors] for row in rows]
    means = [statistics.mean(values) if values else None for values in ours]
    # A figure of fewer images or iterations is none to hold beside the paper's; their order may be.
    comparable = settings['iterations'] == FULL and settings['images'] == WHOLE
    paper = [f'{row.paper:.2f}' for row in rows] if comparable else ranks([row.paper for row in rows])
    lines = [
        f'# Table {table}: {title}',
        '',
        f'Scale: {settings["scale"]}, {settings["iterations"]:,} iterations of 64 images'
        f'{", mixed precision" if settings["amp"] else ""}. '
        f'Data: {settings["data"]}, {settings["images"]:,} training images of CIFAR-10. '
        f'Seeds: {", ".join(map(str, seeds))}.',
        '',
        'Test error in per cent after the last iteration, mean and half the range over the seeds.',
        *(
            []
            if comparable
            else ['', "This is not the paper's training, so its column gives the order of its errors, not the errors."]
        ),
        '',
        f'| | ours | order | {"paper" if comparable else "order in the paper"} | |',
        '| --- | ---: | ---: | ---: | --- |',
    ]
    for row, values, rank, published in zip(rows, ours, ranks(means), paper):
        cell, note = '-', ''
        if values:
            cell = f'{statistics.mean(values):.2f}'
            cell += f' ± {(max(values) - min(values)) / 2:.2f}' if len(values) > 1 else ''
        if row.config is None:
            note = 'not part of this package'
        elif len(values) < len(seeds):
            note = f'{len(values)} of {len(seeds)} seeds; {failures.get(row.config, "not run")}'.replace('|', ' ')
        lines.append(f'| {row.name} | {cell} | {rank} | {published} | {note} |')
    return '\n'.join(lines) + '\n'


def write_csv(path: Path, table: int, rows: list[Row], errors: dict, settings: dict) -> None:
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                'table',
                'row',
                'config',
                'seed',
                'error',
                'paper',
                'scale',
                'iterations',
                'training_images',
                'amp',
                'data',
            ]
        )
        common = [settings[key] for key in ('scale', 'iterations', 'images', 'amp', 'data')]
        for row in rows:
            for seed in settings['seeds'] if row.config else ['']:
                error = errors.get((row.config, seed))
                cell = '' if error is None else f'{error:.2f}'
                writer.writerow([table, row.name, row.config or '', seed, cell, row.paper, *map(settings.get, common)])


def check_settings(work_dir: Path, settings: dict) -> None:
    """Runs of other settings must not be taken for finished ones.

    Raises:
        ValueError: If the folder holds such runs.
    """
    path = work_dir / 'settings.json'
    binding = {key: settings[key] for key in ('iterations', 'images', 'amp')}
    if path.exists() and mmengine.load(path) != binding:
        raise ValueError(
            f'{work_dir} holds runs of {mmengine.load(path)}, and these are {binding}. Give another --work-dir.'
        )
    work_dir.mkdir(parents=True, exist_ok=True)
    mmengine.dump(binding, path)


def main(argv=None):
    args = parse_args(argv)
    data = str(Path(args.data or os.environ.get('MMRESATTN_DATA') or 'data').resolve())
    folder = Path(data) / 'cifar10/train'
    if not folder.is_dir():
        raise FileNotFoundError(
            f'{folder} does not exist. Give --data, a folder that holds cifar10/{{train,test}}/<class>/*.'
        )
    settings = dict(
        scale=args.scale,
        iterations=args.iterations or SCALES[args.scale]['iterations'],
        seeds=args.seeds or SCALES[args.scale]['seeds'],
        images=sum(len(files) for _, _, files in os.walk(folder)),
        amp=args.amp,
        data=data,
    )
    work_dir = Path(args.work_dir or f'work_dirs/experiments/{args.scale}').resolve()
    rows = [row for row in TABLES[args.table][1] if any(part in (row.config or '') for part in args.rows)]
    if not rows:
        raise ValueError(f'No config of table {args.table} has a name with {args.rows} in it.')
    check_settings(work_dir, settings)
    for config in {row.config for row in rows if row.config}:
        Config.fromfile(CONFIGS / f'{config}.py')  # a config that is not there is said now
    console = Console()
    errors, failures = runs_of(rows, settings, work_dir, console)
    markdown = report(args.table, rows, errors, failures, settings)
    out = work_dir / f'table{args.table}'
    out.mkdir(exist_ok=True)
    (out / 'table.md').write_text(markdown)
    write_csv(out / 'results.csv', args.table, rows, errors, settings)
    console.print(Markdown(markdown))
    console.print(f'{out}/table.md, {out}/results.csv', soft_wrap=True)
    return bool(failures)


if __name__ == '__main__':
    sys.exit(main())
