"""Kill a training again and again, also while it saves, resume it, and compare its end with that of an unharmed one.

python .dev_scripts/kill_training.py configs/resattn/attention56_digits.py --kills 20 --work-dir /tmp/kills

Half of the kills come at a random time. The other half come where it hurts most, in turn: before a checkpoint is
written, in the middle of it, when it is whole but has no name yet, and before MMEngine notes its name. All are
``kill -9``, but for the one in the middle, by the kernel at a limit of the file's size. Run it on a CPU, with one
thread (``OMP_NUM_THREADS=1``), and a config of seconds: everything is trained 1 + about kills / 4 times.
"""

import argparse
import os
import random
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from zipfile import is_zipfile

from mmresattn.apis.command_line import ArgumentParser, run_tool

TRAIN = Path(__file__).parents[1] / 'tools/train.py'
CHECKPOINT = re.compile(r'(epoch|iter)_\d+\.pth(\.[\w-]+\.part)?$')
PLACES = ('begin', 'middle', 'unnamed', 'unnoted')


def die_at(place: str, turn: int) -> None:
    """Let this process die at a place in the saving of a checkpoint, of its ``turn``-th one from 0.

    Python reports ("audits") that a file is about to be opened or renamed, which needs no change of what is tested.
    """
    opened = {'begin': CHECKPOINT, 'middle': CHECKPOINT, 'unnoted': re.compile('last_checkpoint$')}.get(place)
    largest = int(os.environ['CHECKPOINT_BYTES'])
    left = turn

    def audit(event: str, args: tuple) -> None:
        nonlocal left
        reached = (
            event == 'open' and opened and isinstance(args[1], str) and 'w' in args[1] and opened.search(str(args[0]))
        ) or (event == 'os.rename' and place == 'unnamed' and CHECKPOINT.search(str(args[1])))
        if not reached:
            return
        left -= 1
        if left >= 0:
            return
        if place != 'middle':
            os.kill(os.getpid(), signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, largest // 2))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it

    sys.addaudithook(audit)


def train(config: str, work_dir: Path, *args: str, place: str = '', turn: int = 0, after: float | None = None) -> str:
    """Train in a process group of its own, until its end or the kill.

    Args:
        config (str): Config file.
        work_dir (Path): Where the run stands.
        *args (str): More for ``tools/train.py``.
        place (str): One of ``PLACES``, or '' for none.
        turn (int): At which checkpoint to die there.
        after (float, optional): Seconds after which to kill it.

    Returns:
        str: ``'done'``, or where it died.
    """
    command = [sys.executable, __file__, config, '--child', f'{place}:{turn}', '--work-dir', str(work_dir), *args]
    with open(work_dir / 'output.txt', 'a') as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)  # the workers of one that died alone
    except ProcessLookupError:
        pass
    if process.returncode not in (0, -signal.SIGKILL, -signal.SIGXFSZ):
        raise RuntimeError(f'Training failed, and not by the kill: see {work_dir / "output.txt"}.')
    return 'done' if not process.returncode else place or 'anywhere'


def state(work_dir: Path) -> tuple[list[Path], list[Path]]:
    """The checkpoints of a run, oldest first: the whole ones, and what there is of others."""
    paths = sorted((p for p in work_dir.iterdir() if CHECKPOINT.search(p.name)), key=lambda path: path.stat().st_mtime)
    whole = [path for path in paths if path.suffix == '.pth' and is_zipfile(path)]
    return whole, [path for path in paths if path not in whole]


def same(a: Path, b: Path) -> bool:
    """Whether two checkpoints have the same weights, buffers and momenta, bit for bit."""
    from mmresattn.weights import differing_tensors, read_checkpoint

    kinds = ('state_dict', 'ema_state_dict', 'optimizer')
    first, second = ({kind: content.get(kind) for kind in kinds} for content in map(read_checkpoint, (a, b)))
    return not differing_tensors(first, second)


def main(argv=None):
    parser = ArgumentParser(description='Kill and resume a training, and compare its end.')
    parser.add_argument('config', help='config file of a short training')
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0, help='of the times of the kills')
    parser.add_argument('--work-dir', type=Path, required=True, help='folder for the runs')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    args, more = parser.parse_known_args(argv)
    if args.child:
        place, turn = args.child.split(':')
        if place:
            die_at(place, int(turn))
        sys.argv = [str(TRAIN), args.config, '--work-dir', str(args.work_dir), *more]
        return runpy.run_path(str(TRAIN), run_name='__main__')

    def fresh(name: str) -> Path:
        shutil.rmtree(args.work_dir / name, ignore_errors=True)
        (args.work_dir / name).mkdir(parents=True)
        return args.work_dir / name

    sys.stdout.reconfigure(line_buffering=True)
    begin, whole_run = time.perf_counter(), fresh('unharmed')
    train(args.config, whole_run, *more)
    lasts = time.perf_counter() - begin
    reference = state(whole_run)[0][-1]
    os.environ['CHECKPOINT_BYTES'] = str(reference.stat().st_size)
    print(f'Unharmed: {lasts:.1f} s, ends with {reference.name} of {reference.stat().st_size:,} bytes.')

    draw, places = random.Random(args.seed), cycle(PLACES)
    kills, ends, differing, torn, runs = 0, 0, 0, 0, 1
    run = fresh('run1')
    while True:
        plan = {}
        if kills < args.kills and kills % 2:
            plan = dict(place=next(places), turn=draw.randrange(2))
        elif kills < args.kills:
            plan = dict(after=draw.uniform(0.3, 1) * lasts)
        died = train(args.config, run, '--resume', *more, **plan)
        whole, parts = state(run)
        if died == 'done':
            equal = same(reference, run / reference.name)
            ends, differing = ends + 1, differing + (not equal)
            print(f'{run.name} ended {"with the same weights, bit for bit" if equal else "with OTHER weights"}.')
            if kills == args.kills:
                break
            runs += 1
            run = fresh(f'run{runs}')
            continue
        kills += 1
        torn += bool(parts)
        print(
            f'kill {kills:2} of {run.name}: {died:8}; whole: {", ".join(p.stem for p in whole) or "none"}; '
            f'parts: {", ".join(f"{p.name} ({p.stat().st_size:,} bytes)" for p in parts) or "none"}'
        )
    print(
        f'{kills} kills, after {torn} of which a part of a checkpoint lay there; {ends} runs ended, {differing} of '
        'them with other weights.'
    )
    return differing


if __name__ == '__main__':
    differing = run_tool(main)
    sys.exit(0 if isinstance(differing, dict) else differing)  # of a child, the globals of tools/train.py
