"""Speed and memory of models, side by side: this package's configs, MMPretrain's, timm's and torchvision's models.

python tools/benchmark.py configs/resattn/attention56_imagenet.py torchvision:resnet50 --ways eager channels_last
python tools/benchmark.py CONFIG --ways train train+checkpointing train+bfloat16 train+commit=a06ee69
python tools/benchmark.py --preset cpu             # or gpu, resnet, scaling; tables and JSON go to --out

Every model in every way is a process of its own. They take turns, round by round, so that a busy machine disturbs all
of them alike; ratios are of neighbours in one round. In every turn the machine also multiplies two large matrices of
the same type, and "share" is the rate of the model's multiply-adds over that of these. "Per multiply-add" is the rate
of the model's multiply-adds over that of the last model of the table in the same way.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import nullcontext
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # else the profiler complains where there is no GPU

import torch  # noqa: E402
from torch import nn  # noqa: E402

ROOT = Path(__file__).parents[1]
WORDS = {
    'eager': 'as the model is built',
    'train': 'a training step (forward, backward, SGD) instead of a forward pass',
    'channels_last': 'weights and images in channels-last order',
    'fuse': 'BatchNorm folded into convolutions (mmresattn.models.fuse)',
    'compile': 'torch.compile; in inference with weights as constants',
    'plain': 'with compile: weights stay inputs of the graph',
    'graphs': 'torch.compile with CUDA graphs',
    'bfloat16': 'weights and images in bfloat16; in training autocast',
    'tf32': 'matrix products in TF32, on GPUs',
    'checkpointing': 'with_cp of the backbone',
    'keep': 'the C library keeps freed memory (mmresattn.compat.cpu_memory)',
}
RESATTN = 'configs/resattn/attention{}_imagenet.py'
CIFAR = 'configs/resattn/attention{}_cifar10.py'
FAST = 'channels_last+fuse+compile'
# What one command measures: groups of models, sizes, batches and ways that take turns.
PRESETS = {
    'cpu': [
        dict(
            models=[RESATTN.format(56), 'mmpretrain:resnet50_8xb32_in1k', 'timm:resnet50'], sizes=[224], batches=[8],
            ways=['eager', 'channels_last', 'channels_last+keep', FAST + '+keep', 'channels_last+keep+bfloat16',
                  FAST + '+keep+bfloat16'],
        ),
        # What the package did before and what it does, then ways on top; one model at a time for the memory of all.
        *(dict(
            models=[model], sizes=[224], batches=[4],
            ways=['train+channels_last+commit=a06ee69', 'train+commit=a06ee69', 'train+channels_last+keep',
                  'train+channels_last+keep+checkpointing', 'train+channels_last+keep+bfloat16',
                  'train+channels_last+keep+compile'],
        ) for model in (RESATTN.format(56), RESATTN.format(92))),
    ],
    # Masks on ResNet-50 beside ResNet-50 itself.
    'resnet': [
        dict(
            models=['configs/resattn/attention-resnet50_imagenet.py', 'mmpretrain:resnet50_8xb32_in1k'], sizes=[224],
            batches=[8], ways=['eager', 'channels_last+keep', FAST + '+keep', FAST + '+keep+bfloat16',
                               'train+channels_last+keep'],
        ),
    ],
    'gpu': [
        dict(
            models=[RESATTN.format(56), RESATTN.format(92), 'torchvision:resnet50', 'torchvision:resnet101'],
            sizes=[224], batches=[64],
            ways=[f'{mode}channels_last{dtype}{how}' for mode in ('', 'train+') for dtype in ('', '+tf32', '+bfloat16')
                  for how in ('', '+compile', '+graphs')],
        ),
        dict(
            models=[CIFAR.format(56), CIFAR.format(92)], sizes=[32], batches=[256],
            ways=[f'{mode}channels_last+{dtype}{how}' for mode in ('', 'train+') for dtype in ('tf32', 'bfloat16')
                  for how in ('', '+compile', '+graphs')],
        ),
    ],
    'scaling': [
        dict(axis='size', models=[RESATTN.format(56)], sizes=[64, 128, 256, 512, 1024], batches=[1],
             ways=['channels_last+keep', 'train+channels_last+keep']),
        dict(axis='batch', models=[RESATTN.format(56)], sizes=[128], batches=[1, 2, 4, 8, 16],
             ways=['channels_last+keep', 'train+channels_last+keep']),
        dict(axis='depth', models=[CIFAR.format(depth) for depth in (56, 92, 128, 164, 236)], sizes=[32], batches=[8],
             ways=['channels_last+keep', 'train+channels_last+keep']),
    ],
}  # fmt: skip


def parse_way(way: str) -> dict:
    """The words of a way: ``{'train': True, 'commit': 'a06ee69'}``.

    Raises:
        ValueError: If a word is unknown, or words exclude each other.
    """
    words = {}
    for word in way.split('+'):
        key, _, value = word.partition('=')
        if key not in WORDS and not (key == 'commit' and value):
            raise ValueError(f'{word!r} of the way {way!r} is none of {list(WORDS)}, commit=HASH.')
        words[key] = value or True
    if 'train' in words and 'fuse' in words:
        raise ValueError(f'{way!r}: a model whose BatchNorm is folded cannot be trained.')
    return words


def machine() -> dict:
    """What the machine is, as far as it matters here."""
    facts = dict(system=platform.platform(), python=platform.python_version(), torch=torch.__version__)
    try:
        lines = dict(line.split(':', 1) for line in Path('/proc/cpuinfo').read_text().splitlines() if ':' in line)
        lines = {key.strip(): value.strip() for key, value in lines.items()}
        known = ('avx2', 'avx512f', 'avx512_bf16', 'avx512_vnni', 'amx_bf16', 'amx_int8')
        flags = lines.get('flags', '').split()
        facts.update(cpu=lines.get('model name'), flags=' '.join(flag for flag in known if flag in flags))
    except OSError:
        facts.update(cpu=platform.processor())
    facts.update(cores=os.cpu_count(), threads=torch.get_num_threads())
    if torch.cuda.is_available():
        facts.update(gpu=torch.cuda.get_device_name(), cuda=torch.version.cuda)
    return facts


def build(name: str, checkpointing: bool = False) -> tuple[nn.Module, dict]:
    """A model with random weights, and the arguments that make its forward give scores.

    Args:
        name (str): ``mmpretrain:NAME``, ``timm:NAME``, ``torchvision:NAME`` or the path of a config.
        checkpointing (bool): Whether the backbone gets ``with_cp=True``. Defaults to False.

    Raises:
        ImportError: If timm is missing.
        ValueError: If the source is unknown, or a model without ``with_cp`` is to be checkpointed.
    """
    torch.manual_seed(0)
    source, _, rest = name.rpartition(':')
    if source in ('timm', 'torchvision') and checkpointing:
        raise ValueError(f'{name} has no with_cp.')
    if source == 'timm':
        try:
            import timm
        except ImportError as error:
            raise ImportError('Models of timm need it: pip install timm') from error
        return timm.create_model(rest), {}
    if source == 'torchvision':
        import torchvision

        return torchvision.models.get_model(rest, weights=None), {}
    if source not in ('', 'mmpretrain'):
        raise ValueError(f'{name!r} is neither mmpretrain:NAME, timm:NAME, torchvision:NAME nor a config.')
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    import mmresattn  # noqa: F401

    if source:
        from mmpretrain.apis.model import ModelHub

        cfg = ModelHub.get(rest).config.model
    else:
        cfg = Config.fromfile(name).model
    if checkpointing:
        cfg.backbone.with_cp = True
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg), dict(mode='tensor')


class Runner:
    """One model in one way: a step, its multiply-adds and its memory."""

    def __init__(self, name: str, size: int, batch: int, way: str, cpu_time: bool = False) -> None:
        words = parse_way(way)
        self.clock = time.process_time if cpu_time else time.perf_counter
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.train = 'train' in words
        self.dtype = torch.bfloat16 if 'bfloat16' in words else torch.float32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = 'tf32' in words
        if 'keep' in words:
            from mmresattn.compat.cpu_memory import keep_large_blocks

            keep_large_blocks()
        model, self.kwargs = build(name, 'checkpointing' in words)
        model.train(self.train)
        layout = torch.channels_last if 'channels_last' in words else torch.contiguous_format
        self.images = torch.randn(batch, 3, size, size).contiguous(memory_format=layout).to(self.device)
        if 'fuse' in words:
            from mmresattn.models.fuse import fuse

            model = fuse(model, **self.kwargs)
        self.model = model.to(self.device, memory_format=layout)
        if self.dtype != torch.float32 and not self.train:
            self.model, self.images = self.model.to(self.dtype), self.images.to(self.dtype)
        self.optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9) if self.train else None
        self.flops = self._count_flops()
        if 'compile' in words or 'graphs' in words:
            how = dict(mode='reduce-overhead') if 'graphs' in words else {}
            if not self.train and 'plain' not in words:
                from torch._inductor import config as inductor

                inductor.freezing = True
            self.model.compile(fullgraph=not self.kwargs, **how)
        n = 2048 if self.device == 'cpu' else 8192
        self.matrix = torch.randn(n, n, device=self.device, dtype=self.dtype)

    def step(self) -> None:
        if not self.train:
            with torch.no_grad():
                self.model(self.images, **self.kwargs)
            return
        self.optimizer.zero_grad(set_to_none=False)
        bfloat16 = self.dtype == torch.bfloat16
        with torch.autocast(self.device, torch.bfloat16) if bfloat16 else nullcontext():
            loss = self.model(self.images, **self.kwargs).float().square().mean()
        loss.backward()
        self.optimizer.step()

    def _count_flops(self) -> int:
        """Of a forward pass; three times that for a training step, as its backward pass has two products for one."""
        from mmresattn.utils import count_multiply_adds

        self.model.eval()
        flops = 2 * count_multiply_adds(self.model, self.images, **self.kwargs)
        self.model.train(self.train)
        return flops * (3 if self.train else 1)

    def time(self, function, n: int) -> float:
        if self.device == 'cuda':
            torch.cuda.synchronize()
        begin = self.clock()
        for _ in range(n):
            function()
        if self.device == 'cuda':
            torch.cuda.synchronize()
        return (self.clock() - begin) / n

    def turn(self, n: int) -> tuple[float, float]:
        """Seconds of a step, and FLOP/s of matrix products before and after it."""
        product = [self.time(lambda: self.matrix @ self.matrix, 3)]
        seconds = self.time(self.step, n)
        product.append(self.time(lambda: self.matrix @ self.matrix, 3))
        return seconds, 2 * len(self.matrix) ** 3 / statistics.mean(product)

    def memory(self) -> int:
        """Bytes of all tensors that a step makes, at the worst moment: over weights, gradients and momentum."""
        if self.device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.step()
            return torch.cuda.max_memory_allocated() - before
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            self.step()
        now = most = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == '[memory]':
                now += event.nbytes()
                most = max(most, now)
        return most


def work(connection, package: str | None, case: dict, threads: int, cpu_time: bool) -> None:
    """A process that takes a case, warms up and answers every number of steps with a turn."""
    if package:
        sys.path.insert(0, package)  # before the first import of mmresattn
    torch.set_num_threads(threads)
    try:
        runner = Runner(**case, cpu_time=cpu_time)
        for _ in range(3):
            runner.step()
        connection.send(dict(flops=runner.flops, memory=runner.memory(), once=runner.time(runner.step, 1)))
        while n := connection.recv():
            connection.send(runner.turn(n))
    except Exception as error:  # noqa: BLE001 - one case that does not run leaves the others their figures
        connection.send(f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}')


def source_of(commit: str, folder: str) -> str:
    """The package as it was at a commit, for ``sys.path``."""
    target = Path(folder, commit)
    if not target.exists():
        done = subprocess.run(['git', 'archive', commit], cwd=ROOT, capture_output=True)
        if done.returncode:
            raise ValueError(f'commit={commit}: {done.stderr.decode().strip()}')
        tarfile.open(fileobj=BytesIO(done.stdout)).extractall(target, filter='data')
    return str(target)


def measure(cases: list[dict], rounds: int, seconds: float, threads: int, cpu_time: bool = False) -> list[dict]:
    """Run all cases in turns.

    Args:
        cases (list[dict]): ``name``, ``size``, ``batch`` and ``way`` of each.
        rounds (int): Turns of each.
        seconds (float): About how long a turn lasts.
        threads (int): Of each process.
        cpu_time (bool): Whether to take processor time instead of time by the clock. Defaults to False.

    Returns:
        list[dict]: The cases with ``images_per_second``, ``step_seconds``, ``share``, ``ratio`` (to the first forward
        pass, or training step) and ``per_multiply_add`` (to the last model in the same way), each as median and
        quartiles, ``flops`` and ``peak_bytes``; or with ``error``.
    """
    context, workers = get_context('spawn'), []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            commit = parse_way(case['way']).get('commit')
            package = source_of(commit, folder) if commit else None
            here, there = context.Pipe()
            process = context.Process(target=work, args=(there, package, case, threads, cpu_time), daemon=True)
            process.start()
            there.close()
            ready = here.recv()  # one after the other: warm-ups would disturb each other
            print(f'{label(case)}: {ready if isinstance(ready, str) else "ready"}', file=sys.stderr, flush=True)
            workers.append((case, process, here, ready))
        turns = [[] for _ in cases]
        for _ in range(rounds):
            for found, (_, _, connection, ready) in zip(turns, workers):
                if not isinstance(ready, str):
                    connection.send(max(1, round(seconds / ready['once'])))
                    found.append(connection.recv())
        for _, process, connection, ready in workers:
            if not isinstance(ready, str):
                connection.send(0)
            process.join()
    first = {}  # a training step is held against a training step
    for case, found in zip(cases, turns):
        first.setdefault('train' in parse_way(case['way']), found)
    results = [
        summary(case, ready, found, first['train' in parse_way(case['way'])])
        for (case, _, _, ready), found in zip(workers, turns)
    ]
    add_rates(results, turns)
    return results


def add_rates(results: list[dict], turns: list[list]) -> None:
    """Add ``per_multiply_add`` to results: the rate of multiply-adds over that of the last model in the same way."""
    alike = ('way', 'size', 'batch')
    last = {tuple(result[key] for key in alike): (result, found) for result, found in zip(results, turns)}
    for result, found in zip(results, turns):
        other, reference = last[tuple(result[key] for key in alike)]
        if found and reference:
            factor = result['flops'] / other['flops']
            result['per_multiply_add'] = spread([factor * b / a for (a, _), (b, _) in zip(found, reference)])


def spread(values: list[float]) -> dict:
    """Median and quartiles."""
    quartiles = statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else values * 3
    return dict(median=quartiles[1], low=quartiles[0], high=quartiles[2])


def summary(case: dict, ready: dict | str, turns: list, first: list) -> dict:
    if isinstance(ready, str):
        return dict(case, error=ready)
    result = dict(
        case,
        step_seconds=spread([step for step, _ in turns]),
        images_per_second=spread([case['batch'] / step for step, _ in turns]),
        share=spread([ready['flops'] / step / rate for step, rate in turns]),
        flops=ready['flops'],
        peak_bytes=ready['memory'],
    )
    if first:
        # Images a second, round by round; cases may differ in their batch.
        result['ratio'] = spread([a / b for (a, _), (b, _) in zip(first, turns)])
    return result


def label(case: dict) -> str:
    return f'{case["name"]} {case["way"]}, {case["batch"]} of {case["size"]}'


def table(results: list[dict]) -> str:
    """Markdown of what was measured; the ratio is of times, the first row's over that of the row, among
    forward passes and among training steps."""
    rows = [
        '| model | size | batch | way | images/s | quartiles | ratio | per multiply-add | share | peak MiB |',
        '| --- | ---: | ---: | --- | ---: | --- | ---: | ---: | ---: | ---: |',
    ]
    for r in results:
        head = f'| {Path(r["name"]).stem} | {r["size"]} | {r["batch"]} | {r["way"].replace("+", " + ")} |'
        if 'error' in r:
            rows.append(f'{head} {r["error"]} | | | | | |')
            continue
        speed = r['images_per_second']
        ratio, rate = (f'{r[key]["median"]:.2f}' if key in r else '' for key in ('ratio', 'per_multiply_add'))
        rows.append(
            f'{head} {speed["median"]:.4g} | {speed["low"]:.4g} to {speed["high"]:.4g} | {ratio} | {rate} | '
            f'{r["share"]["median"]:.2f} | {r["peak_bytes"] / 2**20:.1f} |'
        )
    return '\n'.join(rows) + '\n'


def exponent(x: list[float], y: list[float]) -> float:
    """The slope of log y over log x, by least squares: y grows as x to that power."""
    x, y = torch.tensor(x, dtype=torch.float64).log(), torch.tensor(y, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def depth(name: str) -> str:
    """The number in the name of a model: ``'92'`` of attention92_cifar10."""
    return ''.join(filter(str.isdigit, Path(name).stem.split('_')[0]))


def growth(axis: str, results: list[dict]) -> list[dict]:
    """How time and memory of each way grow with pixels, batch or multiply-adds (for depth)."""
    of = dict(size=lambda r: r['size'] ** 2, batch=lambda r: r['batch'], depth=lambda r: r['flops'])[axis]
    mark = dict(size=lambda r: r['size'], batch=lambda r: r['batch'], depth=lambda r: depth(r['name']))[axis]
    found = []
    for way in dict.fromkeys(r['way'] for r in results):
        rows = sorted((r for r in results if r['way'] == way and 'error' not in r), key=of)
        x = [of(r) for r in rows]
        values = dict(time=[r['step_seconds']['median'] for r in rows], memory=[r['peak_bytes'] for r in rows])
        found += [
            dict(axis=axis, way=way, of=kind, marks=[mark(r) for r in rows], x=x, y=y, exponent=exponent(x, y))
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
                    way = 'training' if 'train' in line['way'] else 'inference'
                    x = [value / line['x'][0] for value in line['x']]  # a training step has three times the products
                    panel.loglog(x, y, 'o-', label=f'{way}: exponent {line["exponent"]:.2f}')
                    panel.set_xticks(x, line['marks'], minor=False)
            panel.set(xlabel=names[axis], ylabel=f'{kind} ({unit})')
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.yaxis.set(
                major_locator=LogLocator(subs=(1, 2, 5)), major_formatter='{x:g}', minor_formatter=NullFormatter()
            )
            panel.legend(fontsize='small', frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse_args(argv=None):
    from mmresattn.apis.command_line import ArgumentParser  # not above: a case may import another mmresattn

    parser = ArgumentParser(
        description='Speed and memory of models, side by side.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='words of a way, joined by +:\n'
        + '\n'.join(f'  {word:15} {text}' for word, text in WORDS.items())
        + '\n  commit=HASH     mmresattn as it was at that commit',
    )
    parser.add_argument('models', nargs='*', help='configs, mmpretrain:NAME, timm:NAME or torchvision:NAME')
    parser.add_argument('--preset', choices=list(PRESETS), help='a set of models and ways, instead of models')
    parser.add_argument('--ways', nargs='+', default=['eager', 'channels_last'], help='see below')
    parser.add_argument('--size', type=int, nargs='+', default=[224], help='height and width of the images')
    parser.add_argument('--batch-size', type=int, nargs='+', default=[8], help='images of a batch')
    parser.add_argument('--rounds', type=int, default=9, help='turns of each case')
    parser.add_argument('--seconds', type=float, default=2, help='about how long a turn lasts')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of each process')
    parser.add_argument('--cpu-time', action='store_true', help='processor time, on a machine with other work')
    parser.add_argument('--out', help='path without ending for a .json, a .md and, where something grows, a .png')
    args = parser.parse_args(argv)
    if bool(args.models) == bool(args.preset):
        parser.error('Give either models or --preset.')
    for way in args.ways:
        try:
            parse_way(way)
        except ValueError as error:
            parser.error(str(error))
    return args


def main(argv=None):
    args = parse_args(argv)
    if args.preset == 'gpu' and not torch.cuda.is_available():
        raise SystemExit('--preset gpu needs a GPU that PyTorch can use; here is none. On this machine: --preset cpu.')
    torch.set_num_threads(args.threads)
    groups = PRESETS.get(args.preset) or [
        dict(models=args.models, sizes=args.size, batches=args.batch_size, ways=args.ways)
    ]
    facts = machine()
    lines = [', '.join(f'{key}: {value}' for key, value in facts.items() if value), '']
    print(lines[0], flush=True)
    report = dict(machine=facts, rounds=args.rounds, groups=[], growth=[])
    for group in groups:
        cases = [
            dict(name=name, size=size, batch=batch, way=way)
            for name in group['models']
            for size in group['sizes']
            for batch in group['batches']
            for way in group['ways']
        ]
        results = measure(cases, args.rounds, args.seconds, args.threads, args.cpu_time)
        report['groups'].append(results)
        lines.append(table(results))
        print(lines[-1], flush=True)
        if 'axis' in group:
            found = growth(group['axis'], results)
            report['growth'] += found
            lines += [f'{line["of"]} of {line["way"]} over {line["axis"]}: exponent {line["exponent"]:.2f}'
                      for line in found] + ['']  # fmt: skip
            print('\n'.join(lines[-1 - len(found) :]), flush=True)
        if args.out:  # after every group: what is done is not lost
            Path(args.out).parent.mkdir(parents=True, exist_ok=True)
            Path(f'{args.out}.json').write_text(json.dumps(report, indent=1))
            Path(f'{args.out}.md').write_text('\n'.join(lines))
    if args.out and report['growth']:
        plot(report['growth'], Path(f'{args.out}.png'))


if __name__ == '__main__':
    from mmresattn.apis.command_line import run_tool

    run_tool(main)
