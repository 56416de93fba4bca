"""Speed and memory of models, side by side: this package's configs, MMPretrain's, timm's and torchvision's models.

python tools/benchmark.py configs/resattn/attention56_imagenet.py torchvision:resnet50 --modes eager channels_last
python tools/benchmark.py CONFIG --modes train train+checkpointing train+bfloat16

Every model in every mode is a process of its own. They take turns, round by round, so that a busy machine disturbs all
of them alike; ratios are of neighbours in one round. In every turn the machine also multiplies two large matrices of
the same type, and "share" is the rate of the model's multiply-adds over that of these. "Per multiply-add" is the rate
of the model's multiply-adds over that of the last model of the table in the same mode.
"""

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from itertools import product
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # otherwise the profiler complains where there is no GPU

# Functions import mmresattn: .dev_scripts/performance.py lets processes import an earlier version of it.
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.benchmark.utils.timer import timer  # noqa: E402

WORDS = {
    'eager': 'as the model is built',
    'train': 'a training step (forward, backward, SGD) instead of a forward pass',
    'channels_last': 'weights and images in channels-last order',
    'compile': 'torch.compile; in inference with weights as constants',
    'plain': 'with compile: weights stay inputs of the graph',
    'graphs': 'torch.compile with CUDA graphs',
    'bfloat16': 'weights and images in bfloat16; in training autocast',
    'tf32': 'matrix products in TF32, on GPUs',
    'checkpointing': 'with_cp of the backbone',
    'keep': 'the C library keeps freed memory (mmresattn.compat.cpu_memory)',
}
COLUMNS = (
    'model', 'size', 'batch', 'mode', 'images/s', 'quartiles', 'ratio', 'per multiply-add', 'share', 'peak MiB'
)  # fmt: skip


def parse_mode(mode: str) -> set[str]:
    """The words of a mode, such as ``{'train', 'channels_last'}`` of ``'train+channels_last'``.

    Raises:
        ValueError: If a word is unknown.
    """
    words = set(mode.split('+'))
    if unknown := words - set(WORDS):
        raise ValueError(f'{", ".join(map(repr, sorted(unknown)))} of the mode {mode!r}: the words are {list(WORDS)}.')
    return words


def machine() -> dict:
    """What the machine is, as far as it matters here."""
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = dict(re.split(r'\s*:\s*', line.strip(), maxsplit=1) for line in lines if ':' in line)
    known = ('avx2', 'avx512f', 'avx512_bf16', 'avx512_vnni', 'amx_bf16', 'amx_int8')
    facts = dict(system=platform.platform(), python=platform.python_version(), torch=torch.__version__)
    facts.update(cpu=cpu.get('model name', platform.processor()))
    facts.update(flags=' '.join(flag for flag in known if flag in cpu.get('flags', '').split()))
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
        ValueError: If the source is unknown, or a model without ``with_cp`` is to be checkpointed.
    """
    torch.manual_seed(0)
    source, _, rest = name.rpartition(':')
    if source in ('timm', 'torchvision') and checkpointing:
        raise ValueError(f'{name} has no with_cp.')
    if source == 'timm':
        import timm

        return timm.create_model(rest), {}
    if source == 'torchvision':
        import torchvision

        return torchvision.models.get_model(rest), {}
    if source not in ('', 'mmpretrain'):
        raise ValueError(f'{name!r} is neither mmpretrain:NAME, timm:NAME, torchvision:NAME nor a config.')
    from mmpretrain import get_model

    import mmresattn  # noqa: F401

    options = dict(backbone=dict(with_cp=True)) if checkpointing else {}
    return get_model(rest, **options), dict(mode='tensor')


class Runner:
    """One model in one mode: a step, its multiply-adds and its memory."""

    def __init__(self, name: str, size: int, batch: int, mode: str, cpu_time: bool = False) -> None:
        words = parse_mode(mode)
        self.clock = time.process_time if cpu_time else timer
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.train = 'train' in words
        self.dtype = torch.bfloat16 if 'bfloat16' in words else torch.float32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = 'tf32' in words
        if 'keep' in words:
            from mmresattn.compat.cpu_memory import keep_large_blocks

            keep_large_blocks()
        from mmresattn.utils import count_multiply_adds

        model, self.kwargs = build(name, 'checkpointing' in words)
        model.eval()  # to count
        layout = torch.channels_last if 'channels_last' in words else torch.contiguous_format
        self.images = torch.randn(batch, 3, size, size).contiguous(memory_format=layout).to(self.device)
        self.model = model.to(self.device, memory_format=layout)
        if self.dtype != torch.float32 and not self.train:
            self.model, self.images = self.model.to(self.dtype), self.images.to(self.dtype)
        self.optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9) if self.train else None
        self.flops = 2 * count_multiply_adds(self.model, self.images, **self.kwargs)
        if self.train:
            self.flops *= 3  # the backward pass has two products for one
            model.train()
        if 'compile' in words or 'graphs' in words:
            if not self.train and 'plain' not in words:
                from torch._inductor import config as inductor

                inductor.freezing = True
            self.model.compile(fullgraph=not self.kwargs, mode='reduce-overhead' if 'graphs' in words else None)
        n = 2048 if self.device == 'cpu' else 8192
        self.matrix = torch.randn(n, n, device=self.device, dtype=self.dtype)

    def step(self) -> None:
        if not self.train:
            with torch.no_grad():
                self.model(self.images, **self.kwargs)
            return
        self.optimizer.zero_grad(set_to_none=False)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            loss = self.model(self.images, **self.kwargs).float().square().mean()
        loss.backward()
        self.optimizer.step()

    def time(self, function, n: int) -> float:
        """Seconds of a call, the mean of ``n``."""
        begin = self.clock()
        for _ in range(n):
            function()
        return (self.clock() - begin) / n

    def turn(self, n: int) -> tuple[float, float]:
        """Seconds of a step, and FLOP/s of matrix products before and after it."""
        before = self.time(lambda: self.matrix @ self.matrix, 3)
        seconds = self.time(self.step, n)
        after = self.time(lambda: self.matrix @ self.matrix, 3)
        return seconds, 2 * len(self.matrix) ** 3 / ((before + after) / 2)

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


def work(connection, case: dict, threads: int, cpu_time: bool) -> None:
    """A process that takes a case, warms up and answers every number of steps with a turn."""
    torch.set_num_threads(threads)
    try:
        runner = Runner(**case, cpu_time=cpu_time)
        for _ in range(3):
            runner.step()
        connection.send(dict(flops=runner.flops, peak_bytes=runner.memory(), once=runner.time(runner.step, 1)))
        while n := connection.recv():
            connection.send(runner.turn(n))
    except Exception as error:  # noqa: BLE001 - one case that does not run leaves the others their figures
        connection.send(dict(error=f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'))


def measure(
    cases: list[dict], rounds: int, seconds: float, threads: int, cpu_time: bool = False, work: Callable = work
) -> list[dict]:
    """Run all cases in turns.

    Args:
        cases (list[dict]): ``name``, ``size``, ``batch`` and ``mode`` of each.
        rounds (int): Turns of each.
        seconds (float): About how long a turn lasts.
        threads (int): Of each process.
        cpu_time (bool): Whether to take processor time instead of time by the clock. Defaults to False.
        work (Callable): What each process runs. Defaults to :func:`work`.

    Returns:
        list[dict]: The cases with ``images_per_second``, ``step_seconds``, ``share``, ``ratio`` (to the first forward
        pass, or training step) and ``per_multiply_add`` (to the last model in the same mode), each as median and
        quartiles, ``flops`` and ``peak_bytes``; or with ``error``.
    """
    context, workers, results = get_context('spawn'), [], []
    for case in cases:
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there, case, threads, cpu_time), daemon=True)
        process.start()
        there.close()
        ready = here.recv()  # one after the other: warm-ups would disturb each other
        label = f'{case["name"]} {case["mode"]}, {case["batch"]} of {case["size"]}'
        print(f'{label}: {ready.get("error", "ready")}', file=sys.stderr, flush=True)
        workers.append((process, here, ready.pop('once', None)))
        results.append(case | ready)
    turns = [[] for _ in cases]
    for _ in range(rounds):
        for found, (_, connection, once) in zip(turns, workers):
            if once is not None:
                connection.send(max(1, round(seconds / once)))
                found.append(connection.recv())
    for process, connection, once in workers:
        if once is not None:
            connection.send(0)
        process.join()
    summarise(results, turns)
    return results


def spread(values: list[float]) -> dict:
    """Median and quartiles."""
    return dict(zip(('low', 'median', 'high'), np.percentile(values, (25, 50, 75)).tolist()))


def summarise(results: list[dict], turns: list[list]) -> None:
    """Add to each result what its turns tell, alone, beside the first case and beside the last model in its mode."""
    alike = itemgetter('mode', 'size', 'batch')
    first, last = {}, {alike(result): (result, found) for result, found in zip(results, turns)}
    for result, found in zip(results, turns):
        reference = first.setdefault('train' in result['mode'], found)  # a training step beside a training step
        if not found:
            continue
        result.update(
            step_seconds=spread([step for step, _ in found]),
            images_per_second=spread([result['batch'] / step for step, _ in found]),
            share=spread([result['flops'] / step / rate for step, rate in found]),
        )
        if reference:  # round by round
            result['ratio'] = spread([a / b for (a, _), (b, _) in zip(reference, found)])
        other, reference = last[alike(result)]
        if reference:
            factor = result['flops'] / other['flops']
            result['per_multiply_add'] = spread([factor * b / a for (a, _), (b, _) in zip(found, reference)])


def table(results: list[dict]) -> str:
    """Markdown of what was measured; the ratio is of times, the first row's over that of the row, among
    forward passes and among training steps."""
    from mmresattn.apis.command_line import markdown_table

    rows = []
    for r in results:
        head = (Path(r['name']).stem, r['size'], r['batch'], r['mode'].replace('+', ' + '))
        if 'error' in r:
            rows.append((*head, r['error'], *[''] * 5))
            continue
        speed = r['images_per_second']
        ratio, rate = (f'{r[key]["median"]:.2f}' if key in r else '' for key in ('ratio', 'per_multiply_add'))
        quartiles = f'{speed["low"]:.4g} to {speed["high"]:.4g}'
        shares = (f'{r["share"]["median"]:.2f}', f'{r["peak_bytes"] / 2**20:.1f}')
        rows.append((*head, f'{speed["median"]:.4g}', quartiles, ratio, rate, *shares))
    return markdown_table(COLUMNS, rows, (0, 3, 5))


def cases_of(models: list[str], sizes: list[int], batches: list[int], modes: list[str]) -> list[dict]:
    """Every model at every size and batch in every mode."""
    keys = ('name', 'size', 'batch', 'mode')
    return [dict(zip(keys, values)) for values in product(models, sizes, batches, modes)]


def save(out: str, report: dict, lines: list[str]) -> None:
    """Write the numbers to ``out`` with the ending .json, and the tables with .md."""
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(f'{out}.json').write_text(json.dumps(report, indent=1))
    Path(f'{out}.md').write_text('\n'.join(lines))


def make_parser() -> argparse.ArgumentParser:
    from mmresattn.apis.command_line import ArgumentParser

    parser = ArgumentParser(
        description='Speed and memory of models, side by side.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='words of a mode, joined by +:\n' + '\n'.join(f'  {word:15} {text}' for word, text in WORDS.items()),
    )
    parser.add_argument('models', nargs='*', help='configs, mmpretrain:NAME, timm:NAME or torchvision:NAME')
    parser.add_argument('--modes', nargs='+', default=['eager', 'channels_last'], help='see below')
    parser.add_argument('--size', type=int, nargs='+', default=[224], help='height and width of the images')
    parser.add_argument('--batch-size', type=int, nargs='+', default=[8], help='images of a batch')
    parser.add_argument('--rounds', type=int, default=9, help='turns of each case')
    parser.add_argument('--seconds', type=float, default=2, help='about how long a turn lasts')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of each process')
    parser.add_argument('--cpu-time', action='store_true', help='processor time, on a machine with other work')
    parser.add_argument('--out', help='path without ending for a .json and a .md')
    return parser


def main(argv=None):
    parser = make_parser()
    args = parser.parse_args(argv)
    if not args.models:
        parser.error('Give models.')
    for mode in args.modes:
        parse_mode(mode)
    torch.set_num_threads(args.threads)
    facts = machine()
    lines = [', '.join(f'{key}: {value}' for key, value in facts.items() if value), '']
    print(lines[0], flush=True)
    cases = cases_of(args.models, args.size, args.batch_size, args.modes)
    results = measure(cases, args.rounds, args.seconds, args.threads, args.cpu_time)
    lines.append(table(results))
    print(lines[-1], flush=True)
    if args.out:
        save(args.out, dict(machine=facts, rounds=args.rounds, groups=[results]), lines)


if __name__ == '__main__':
    from mmresattn.apis.command_line import run_tool

    run_tool(main)
