"""Time the wait for data beside the step of a training, for several ways of loading, side by side.

Images a second "alone" are those of loading, normalisation and augmentation when no network takes them.

python .dev_scripts/data_time.py configs/resattn/attention56_cifar10.py \\
    --data configs/_base_/datasets/cifar10_memory_bs64.py configs/_base_/datasets/cifar10_bs64.py
"""

import argparse
import statistics
from itertools import cycle
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch.utils.benchmark.utils.timer import timer

from mmresattn.apis import add_common_arguments, build_runner, load_config, use_mixed_precision
from mmresattn.apis.command_line import ArgumentParser, print_table, run_tool


def parse_args(argv=None):
    parser = ArgumentParser(description='Time the wait for data beside the step of a training.')
    parser.add_argument('config', help='config file of the training')
    parser.add_argument(
        '--data', nargs='+', required=True, help='configs whose train_dataloader and data_preprocessor are compared'
    )
    parser.add_argument('--iterations', type=int, default=20, help='iterations of each in every round')
    parser.add_argument('--rounds', type=int, default=3, help='rounds, in which one comes after the other')
    parser.add_argument('--amp', action='store_true', help='mixed precision; on CPUs in bfloat16')
    add_common_arguments(parser)
    return parser.parse_args(argv)


class Loading:
    """One way of loading: its batches without end, its preprocessor, and the times that were taken."""

    def __init__(self, cfg: Config, device) -> None:
        self.loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        self.preprocessor = MODELS.build({'type': 'ClsDataPreprocessor', **cfg.data_preprocessor}).to(device)
        self.batches = (batch for _ in cycle([0]) for batch in self.loader)
        self.wait, self.step = [], []

    def train(self, model, optim_wrapper, iterations: int, keep: bool) -> None:
        model.data_preprocessor = self.preprocessor
        for _ in range(iterations):
            start = timer()
            batch = next(self.batches)
            loaded = timer()
            model.train_step(batch, optim_wrapper)
            end = timer()
            if keep:
                self.wait.append(loaded - start)
                self.step.append(end - start)

    def alone(self, batches: int) -> float:
        """Images a second that loading and augmentation give when no network takes them."""
        next(self.batches)
        start, images = timer(), 0
        for _ in range(batches):
            images += self.preprocessor(next(self.batches), training=True)['inputs'].shape[0]
        return images / (timer() - start)


def main(argv=None):
    args = parse_args(argv)
    cfg = load_config(args)
    if args.amp:
        use_mixed_precision(cfg)
    runner = build_runner(cfg, ['train_dataloader'])
    runner.call_hook('before_run')  # such as the one for the memory format of the weights
    runner.model.train()
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        loadings = {
            Path(path).stem: Loading(
                load_config(argparse.Namespace(**{**vars(args), 'config': path})),
                next(runner.model.parameters()).device,
            )
            for path in args.data
        }
        for number in range(args.rounds + 1):  # the first one warms up
            for loading in loadings.values():
                loading.train(runner.model, runner.optim_wrapper, args.iterations, keep=number > 0)
        alone = {name: loading.alone(5 * args.iterations) for name, loading in loadings.items()}
    rows = []
    for name, loading in loadings.items():
        wait, step = statistics.median(loading.wait), statistics.median(loading.step)
        share = sum(loading.wait) / sum(loading.step)
        rows.append((name, f'{wait * 1e3:.2f} ms', f'{step * 1e3:.0f} ms', f'{share:.2%}', f'{alone[name]:,.0f}'))
    title = f'{Path(args.config).stem}, medians of {args.rounds} x {args.iterations} iterations'
    print_table(title, ('data', 'data_time', 'time', 'share', 'images/s alone'), rows)


if __name__ == '__main__':
    run_tool(main)
