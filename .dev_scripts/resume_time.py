"""Time how long a long iteration-based training takes to resume.

python .dev_scripts/resume_time.py configs/resattn/attention92_cifar10.py --iteration 100000

Trains one iteration, sets the checkpoint's clock to the given one, resumes from it and stops after one iteration more.
"""

import tempfile
import time
from pathlib import Path

import torch
from mmengine.hooks import Hook

from mmresattn.apis import add_common_arguments, build_runner, load_config
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.weights import read_checkpoint


class FirstIteration(Hook):
    """Notes when the first iteration begins and ends."""

    begin = end = None

    def before_train_iter(self, runner, **kwargs):
        self.begin = self.begin or time.perf_counter()

    def after_train_iter(self, runner, **kwargs):
        self.end = self.end or time.perf_counter()


def train(args, work_dir, iterations, load_from=None):
    cfg = load_config(args)
    cfg.update(work_dir=str(work_dir), load_from=load_from, resume=load_from is not None)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_cfg.max_iters = iterations
    cfg.default_hooks.checkpoint.update(interval=1, by_epoch=False)
    cfg.experiment_name = f'resume_time_{iterations}'
    runner, timer = build_runner(cfg, ['train_dataloader']), FirstIteration()
    runner.register_hook(timer)
    start = time.perf_counter()
    runner.train()
    return timer, start


def main(argv=None):
    parser = ArgumentParser(description='Time how long an iteration-based training takes to resume.')
    parser.add_argument('config', help='config file of an iteration-based training')
    parser.add_argument('--iteration', type=int, default=100_000, help='iteration from which to resume')
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        train(args, Path(folder) / 'first', 1)
        path = Path(folder) / 'first' / 'iter_1.pth'
        checkpoint = read_checkpoint(path)
        checkpoint['meta']['iter'] = args.iteration
        torch.save(checkpoint, path)
        timer, start = train(args, Path(folder) / 'second', args.iteration + 1, str(path))
    print(
        f'Resumed at iteration {args.iteration:,}: {timer.begin - start:.1f} s from Runner.train() to the batch of the '
        f'next iteration, {timer.end - start:.1f} s to its end.'
    )


if __name__ == '__main__':
    run_tool(main)
