"""Re-run a table of "Residual Attention Network for Image Classification" and hold the figures beside the paper's.

python .dev_scripts/experiments.py 3  # 160,000 iterations a row, as in the paper
python .dev_scripts/experiments.py 3 --scale short --amp --rows 'attention56*'  # minutes a row

Rows that are finished are skipped, and a row that was interrupted goes on where it stood: run the same command again.
A row that fails is reported and loses no other. The table is written anew after every row.
"""

import argparse
import csv
import fcntl
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from zipfile import is_zipfile

from mmengine.config import Config
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mmresattn.apis.command_line import ArgumentParser, markdown_table, run_tool
from mmresattn.weights import write_whole

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / 'configs/resattn'


@dataclass(frozen=True)
class Row:
    """One figure of a table: what it is called, the paper's error in per cent, and the config (None: not in here)."""

    name: str
    paper: float
    config: str | None

    @property
    def data(self) -> str:
        return 'cifar100' if 'CIFAR-100' in self.name else 'cifar10'


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
DATA = ('cifar10', 'cifar100')
FULL = 160_000  # iterations of 64 images
SCALES = {'full': dict(iterations=FULL, seeds=[0]), 'short': dict(iterations=1_560, seeds=[0, 1])}
WHOLE = dict(train=50_000, test=10_000)  # images of both CIFARs
IMAGES = ('.png', '.jpg', '.jpeg', '.bmp', '.ppm', '.webp', '.tif', '.tiff')


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', type=int, choices=list(TABLES), help='table of the paper')
    parser.add_argument(
        '--scale', choices=list(SCALES), default='full', help="full: the paper's iterations; short: 1,560, two seeds"
    )
    parser.add_argument('--iterations', type=int, help="instead of the scale's; the rate drops at 40 %% and 60 %%")
    parser.add_argument('--seeds', type=int, nargs='+', help="instead of the scale's")
    parser.add_argument(
        '--rows',
        nargs='+',
        default=['*'],
        help="run only configs of these names or patterns: 'attention56*', '*cifar10'",
    )
    parser.add_argument('--data', help='folder that holds cifar10/ and cifar100/; default: $MMRESATTN_DATA or data')
    parser.add_argument('--work-dir', help='default: work_dirs/experiments/<scale>; tables share the runs in it')
    parser.add_argument('--amp', action='store_true', help='mixed precision; on CPUs in bfloat16')
    args = parser.parse_args(argv)
    if args.iterations is not None and args.iterations < 5:
        parser.error('--iterations: at least 5.')
    if args.seeds and len(set(args.seeds)) < len(args.seeds):
        parser.error('--seeds: each one once.')
    return args


def finished(run_dir: Path) -> float | None:
    """The test error of a run in per cent, None if it is not at its end yet."""
    metrics = run_dir / 'metrics.json'
    return 100 - json.loads(metrics.read_text())['accuracy/top1'] if metrics.exists() else None


@contextmanager
def locked(run_dir: Path):
    """The file of a lock that lasts as long as any process that holds it, such as a training which outlived us.

    Raises:
        RuntimeError: If another process runs here.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with open(run_dir / 'lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RuntimeError(f'another process is running it in {run_dir}') from error
        yield lock


def run(config: Path, run_dir: Path, seed: int, settings: dict, on_step: Callable[[int], None]) -> None:
    """Train and test one network, each as a process of its own: its end, of whatever kind, is no end of the others.

    Raises:
        RuntimeError: If one fails; with the error in its log.
    """
    iterations = settings['iterations']
    checkpoint, metrics = run_dir / f'iter_{iterations}.pth', run_dir / 'test' / 'metrics.json'
    options = [
        f'randomness.seed={seed}',
        f'train_cfg.max_iters={iterations}',
        f'param_scheduler.milestones=[{iterations * 2 // 5},{iterations * 3 // 5}]',
        f'default_hooks.checkpoint.interval={min(4_000, max(1, iterations // 10))}',
        'default_hooks.checkpoint.max_keep_ckpts=2',
        f'default_hooks.logger.interval={min(100, max(1, iterations // 50))}',
    ]
    train = ['tools/train.py', config, '--work-dir', run_dir, '--resume', '--no-validate', '--cfg-options', *options]
    train += ['--amp'] if settings['amp'] else []
    # The test images choose nothing: they are looked at once, at the end.
    test = ['tools/test.py', config, checkpoint, '--work-dir', run_dir / 'test', '--out', metrics]
    test += ['--out-item', 'metrics']
    with locked(run_dir) as lock:
        if not is_zipfile(checkpoint):  # not there, or not written to its end
            process(train, run_dir / 'train.log', settings['data'], lock, on_step)
        process(test, run_dir / 'test.log', settings['data'], lock, on_step)
        metrics.replace(run_dir / 'metrics.json')


def process(command: list, log: Path, data: str, lock, on_step: Callable[[int], None]) -> None:
    """Run one of our tools, and pass on how far it is."""
    paths = [str(ROOT), os.environ.get('PYTHONPATH')]
    child = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, 'MMRESATTN_DATA': data, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
        cwd=ROOT,
        text=True,
        errors='replace',
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[lock.fileno()],
    )
    reason = ''
    try:
        with open(log, 'a') as file:
            for line in child.stdout:
                file.write(line)
                file.flush()
                if re.match(r'\w+(\.\w+)*(Error|Exception|Interrupt)\b', line):
                    reason = line.strip()
                if step := re.search(r'Iter\(train\) *\[ *(\d+)/', line):
                    on_step(int(step[1]))
    finally:
        child.terminate()  # of no effect on one that ended
        child.wait()
    if child.returncode:
        raise RuntimeError(f'{reason or "no error in its log"}; exit status {child.returncode}, see {log}')


def ranks(rows: list[Row], values: list[float | None]) -> list[str]:
    """Places from the lowest error of a data set, 1, up; '-' where there is no value."""
    known = {data: sorted(v for r, v in zip(rows, values) if r.data == data and v is not None) for data in DATA}
    return ['-' if v is None else str(known[row.data].index(v) + 1) for row, v in zip(rows, values)]


class Results:
    """What is known of a table: errors by (config, seed) and failures by config, and the files that say it."""

    def __init__(self, table: int, settings: dict, work_dir: Path) -> None:
        self.table, self.settings, self.work_dir = table, settings, work_dir
        self.title, self.rows = TABLES[table]
        self.errors, self.failures = {}, {}

    def run_dir(self, config: str, seed: int) -> Path:
        return self.work_dir / Path(config).name / f'seed{seed}'

    def collect(self) -> None:
        """Find the errors of all runs that are finished, by whatever command."""
        for config in {row.config for row in self.rows if row.config}:
            for seed in self.settings['seeds']:
                error = finished(self.run_dir(config, seed))
                if error is not None:
                    self.errors[config, seed] = error

    def comparable(self, row: Row) -> bool:
        """Whether this is the paper's training: a figure of fewer images or iterations is none to hold beside its."""
        return self.settings['iterations'] == FULL and self.settings['images'][row.data] == WHOLE

    def markdown(self) -> str:
        """The table with the paper's column beside ours."""
        seeds, images = self.settings['seeds'], self.settings['images']
        ours = [[self.errors[row.config, s] for s in seeds if (row.config, s) in self.errors] for row in self.rows]
        means = [statistics.mean(values) if values else None for values in ours]
        used = list(dict.fromkeys(row.data for row in self.rows))
        whole = all(map(self.comparable, self.rows))
        published = [
            f'{row.paper:.2f}' if self.comparable(row) else f'order {rank}'
            for row, rank in zip(
                self.rows, ranks(self.rows, [row.paper if values else None for row, values in zip(self.rows, ours)])
            )
        ]
        lines = [
            f'# Table {self.table}: {self.title}',
            '',
            f'Scale: {self.settings["scale"]}, {self.settings["iterations"]:,} iterations of 64 images'
            f'{", mixed precision" if self.settings["amp"] else ""}. Data: {self.settings["data"]}, '
            + ', '.join(f'{name} of {images[name]["train"]:,} + {images[name]["test"]:,} images' for name in used)
            + f'. Seeds: {", ".join(map(str, seeds))}.',
            '',
            'Test error in per cent after the last iteration, mean and half the range over the seeds.',
        ]
        if not whole:
            lines += ['', "Where it is not the paper's training, its column gives the order of its errors alone."]
        rows = []
        for row, values, rank, paper in zip(self.rows, ours, ranks(self.rows, means), published):
            cell, note = '-', ''
            if values:
                cell = f'{statistics.mean(values):.2f}'
                cell += f' ± {(max(values) - min(values)) / 2:.2f}' if len(values) > 1 else ''
            if row.config is None:
                note = 'not part of this package'
            elif len(values) < len(seeds):
                note = f'{len(values)} of {len(seeds)} seeds; {self.failures.get(row.config, "not run")}'
            rows.append((row.name, cell, rank, paper, note.replace('|', ' ')))
        return '\n'.join([*lines, '', markdown_table(('', 'ours', 'order', 'paper', ''), rows, (0, 4))])

    def save(self) -> Path:
        """Write table.md and results.csv."""
        out = self.work_dir / f'table{self.table}'
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / 'table.md', self.markdown().encode())
        common = ('scale', 'iterations', 'amp', 'data')
        lines = [['table', 'row', 'config', 'seed', 'error', 'paper', 'training_images', 'test_images', *common]]
        for row in self.rows:
            images = self.settings['images'][row.data]
            for seed in self.settings['seeds'] if row.config else ['']:
                error = self.errors.get((row.config, seed))
                cells = [row.config or '', seed, '' if error is None else f'{error:.2f}', row.paper]
                counts = [images['train'], images['test']]
                lines.append([self.table, row.name, *cells, *counts, *(self.settings[key] for key in common)])
        text = io.StringIO()
        csv.writer(text).writerows(lines)
        write_whole(out / 'results.csv', text.getvalue().encode())
        return out


def run_all(results: Results, configs: list[str], console: Console) -> None:
    """Run what is not finished, and save after each run."""
    iterations, seeds = results.settings['iterations'], results.settings['seeds']
    todo = [(config, seed) for seed in seeds for config in configs if (config, seed) not in results.errors]
    columns = [TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=console) as progress:
        overall = progress.add_task('runs', total=len(configs) * len(seeds))
        progress.advance(overall, len(configs) * len(seeds) - len(todo))
        for config, seed in todo:
            name = f'{config}, seed {seed}'
            current = progress.add_task(name, total=iterations)
            run_dir = results.run_dir(config, seed)
            try:
                path = CONFIGS / f'{config}.py'
                run(path, run_dir, seed, results.settings, lambda n, task=current: progress.update(task, completed=n))
                results.errors[config, seed] = finished(run_dir)
                console.print(f'{name}: {results.errors[config, seed]:.2f} % error', soft_wrap=True)
            except Exception as failure:  # of one row, whatever it is
                results.failures[config] = str(failure)
                console.print(f'{name} failed: {failure}', style='red', markup=False, soft_wrap=True)
            progress.remove_task(current)
            progress.advance(overall)
            results.save()


def count_images(folder: Path) -> int:
    return sum(name.lower().endswith(IMAGES) for _, _, names in os.walk(folder, followlinks=True) for name in names)


def check_settings(work_dir: Path, settings: dict) -> None:
    """Runs of other settings must not be taken for finished ones.

    Raises:
        ValueError: If the folder holds such runs.
    """
    path = work_dir / 'settings.json'
    binding = {key: settings[key] for key in ('iterations', 'amp', 'data', 'images')}
    if path.exists() and (there := json.loads(path.read_text())) != binding:
        raise ValueError(f'{work_dir} holds runs of {there}, and these are {binding}. Give another --work-dir.')
    work_dir.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(binding).encode())


def main(argv=None):
    args = parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('terminated'))  # a training then ends with us
    data = Path(args.data or os.environ.get('MMRESATTN_DATA') or 'data').resolve()
    images = {name: {split: count_images(data / name / split) for split in ('train', 'test')} for name in DATA}
    if not any(images[name]['train'] for name in DATA):
        raise FileNotFoundError(
            f'{data}/cifar10/train holds no images. Give --data, a folder that holds cifar10/{{train,test}}/<class>/*.'
        )
    configs = list(dict.fromkeys(row.config for row in TABLES[args.table][1] if row.config))
    chosen = {pattern: [c for c in configs if fnmatch(Path(c).name, pattern)] for pattern in args.rows}
    if nothing := [pattern for pattern, matches in chosen.items() if not matches]:
        raise ValueError(
            f'--rows {nothing}: no config of table {args.table}; it has {[Path(c).name for c in configs]}.'
        )
    for config in configs:
        Config.fromfile(CONFIGS / f'{config}.py')  # one that is broken is said now
    iterations = args.iterations or SCALES[args.scale]['iterations']
    scale = args.scale if iterations == SCALES[args.scale]['iterations'] else 'custom'
    settings = dict(
        scale=scale,
        iterations=iterations,
        seeds=args.seeds or SCALES[args.scale]['seeds'],
        images=images,
        amp=args.amp,
        data=str(data),
    )
    work_dir = Path(args.work_dir or f'work_dirs/experiments/{scale}').resolve()
    check_settings(work_dir, settings)
    console = Console()
    results = Results(args.table, settings, work_dir)
    results.collect()
    run_all(results, [c for c in configs if any(c in matches for matches in chosen.values())], console)
    out = results.save()
    console.print(Markdown(results.markdown()))
    console.print(f'{out}/table.md, {out}/results.csv', soft_wrap=True)
    return bool(results.failures)


if __name__ == '__main__':
    sys.exit(run_tool(main))
