"""Train one network in slices of minutes or hours, test it once, and keep what a reader of the figure wants to see.

    python .dev_scripts/headline.py configs/resattn/attention92_cifar10.py --minutes 9

The same command again continues where the last slice stopped; a slice also stops, with a checkpoint, at SIGTERM. At the
end the test images are looked at, once; nothing was chosen by them. The work dir then holds record.json (error, seed,
versions, speed), curve.png, the config, the logs, and the weights in half precision if they lose no more than 0.02
points of accuracy.

Batches come from memory and are augmented on the device, channels-last, through a compiled backbone, in bfloat16 where
the device multiplies in bfloat16. With --holdout a tenth of the training images validates instead and the test images
stay unseen: to choose a recipe by.

--unfinished FILE.safetensors keeps the weights of every slice in a small file, in half precision and without the state
of the optimizer. Where the work dir holds no checkpoint, as in a fresh clone, the training continues from that file at
its iteration and learning rate, with new momentum, and logs a warning. A finished training removes the file.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import mmengine
import mmpretrain
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from safetensors.torch import save_file

import mmresattn
from mmresattn.apis import add_common_arguments, build_runner, latest_checkpoint, load_config
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.deployment import has_fast_bfloat16
from mmresattn.engine import TrainingStopped
from mmresattn.weights import read_checkpoint
from mmresattn.weights.loader import METADATA

ROOT = Path(__file__).parents[1]
TOLERANCE = 0.02  # points of accuracy that half precision may cost


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a classifier on CIFAR')
    parser.add_argument('--minutes', type=float, default=9, help='stop with a checkpoint after so many minutes')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--holdout', action='store_true', help='validate on a tenth of the training images instead')
    parser.add_argument('--eager', action='store_true', help='do not compile the backbone')
    parser.add_argument('--unfinished', type=Path, help='file for the weights of an unfinished training')
    parser.add_argument(
        '--arrays', type=Path, help='folder whose train.npz (images, labels, classes) holds the training images'
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def in_memory(loader: dict) -> None:
    """Let a dataloader give batches from memory, as that of training does."""
    if loader.dataset.type != 'InMemory':
        loader.dataset = dict(type='InMemory', dataset=loader.dataset)
    loader.update(num_workers=0, persistent_workers=False, collate_fn=dict(type='one_batch'), batch_size=500)


@HOOKS.register_module()
class ContinueFromWeightsHook(Hook):
    """Continues a training at ``iteration`` from its weights alone."""

    priority = 'VERY_HIGH'  # before ReplayHook, which positions the sampler

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train(self, runner: Runner) -> None:
        runner.train_loop._iter = self.iteration
        for scheduler in runner.param_schedulers:
            for _ in range(self.iteration):
                scheduler.step()
        runner.logger.warning(
            f'Continued at iteration {self.iteration} from half-precision weights, without the momentum of the '
            'optimizer: the result is not bit-identical to that of an uninterrupted training.'
        )


def save_unfinished(checkpoint: str, path: Path) -> None:
    """Write the weights of a checkpoint in half precision, with the iteration at which they were saved."""
    saved = read_checkpoint(checkpoint)
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in saved['state_dict'].items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, {METADATA: json.dumps({key: saved['meta'][key] for key in ('iter', 'seed')})})


def prepare(cfg: Config, args: argparse.Namespace) -> None:
    """What a recipe gets besides, whichever it is."""
    cfg.randomness = dict(seed=args.seed)
    if has_fast_bfloat16():
        cfg.optim_wrapper.type = 'AutocastOptimWrapper'
    if args.arrays:
        pipeline = [step for step in cfg.train_dataloader.dataset.dataset.pipeline if 'Load' not in step.type]
        arrays = dict(type='ImageArrays', data=str(args.arrays / 'train.npz'), pipeline=pipeline)
        cfg.train_dataloader.dataset.dataset = arrays
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        in_memory(loader)
    if args.holdout:
        folds = dict(type='KFoldDataset', num_splits=10, fold=0, seed=0, dataset=cfg.train_dataloader.dataset.dataset)
        cfg.train_dataloader.dataset.dataset = dict(folds, test_mode=False)
        cfg.val_dataloader.dataset.dataset = dict(folds, test_mode=True)
    else:
        cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.custom_hooks.append(dict(type='TimeBudgetHook', minutes=args.minutes))
    if not args.eager:
        mode = 'reduce-overhead' if torch.cuda.is_available() else 'default'
        cfg.custom_hooks.append(dict(type='CompileBackboneHook', mode=mode))
    cfg.default_hooks.logger.interval = 50
    if found := latest_checkpoint(cfg.work_dir):
        cfg.resume, cfg.load_from = True, found
    elif args.unfinished and args.unfinished.exists():
        cfg.load_from = str(args.unfinished)
        iteration = read_checkpoint(args.unfinished)['meta']['iter']
        cfg.custom_hooks.append(dict(type='ContinueFromWeightsHook', iteration=iteration))


def scalars(work_dir: Path) -> list[dict]:
    """What the logger wrote in all parts of the training, in their order."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def draw(lines: list[dict], path: Path) -> None:
    """The curve of the loss and, where there is one, of the accuracy on held-out images."""
    figure = Figure(figsize=(7, 3.5), layout='constrained')
    axis = figure.subplots()
    losses = [(line['iter'], line['loss']) for line in lines if 'loss' in line]
    axis.plot(*zip(*losses), linewidth=0.8, label='training loss')
    axis.set(xlabel='iteration', ylabel='training loss', yscale='log')
    if held_out := [(line['step'], line['accuracy/top1']) for line in lines if 'accuracy/top1' in line]:
        right = axis.twinx()
        right.plot(*zip(*held_out), color='tab:orange', label='held-out accuracy')
        right.set_ylabel('held-out accuracy in %')
    figure.savefig(path, dpi=150)


def tool(name: str, *arguments: object) -> None:
    """Run another of our tools."""
    subprocess.run([sys.executable, ROOT / 'tools' / name, *map(str, arguments)], check=True)


def test_accuracy(config: Path, weights: Path, out: Path) -> float:
    """Accuracy on the test images in per cent, as tools/test.py gives it to anyone."""
    tool('test.py', config, weights, '--work-dir', out, '--out', out / 'metrics.json', '--out-item', 'metrics')
    return json.loads((out / 'metrics.json').read_text())['accuracy/top1']


def main(argv=None):
    args = parse_args(argv)
    started = time.monotonic()
    cfg = load_config(args)
    work_dir = Path(cfg.work_dir, f'seed{args.seed}' + ('-holdout' if args.holdout else ''))
    cfg.work_dir = str(work_dir)
    record_file = work_dir / 'record.json'
    if record_file.exists():
        print(record_file.read_text())
        return
    recipe = work_dir / 'recipe' / Path(args.config).name  # as it is without what a lent machine needs
    recipe.parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(recipe)
    prepare(cfg, args)
    runner = build_runner(cfg, ['train_dataloader', 'val_dataloader' if args.holdout else 'test_dataloader'])
    try:
        runner.train()
    except TrainingStopped as stopped:
        if args.unfinished:
            save_unfinished(latest_checkpoint(work_dir), args.unfinished)
        minutes = (time.monotonic() - started) / 60
        print(
            f'Iteration {stopped.iteration} of {runner.max_iters}, {minutes:.1f} minutes. Run the same command again.'
        )
        return

    lines = scalars(work_dir)
    seconds = statistics.median(line['time'] for line in lines if 'loss' in line)
    record = dict(
        config=args.config,
        seed=args.seed,
        training_images=len(runner.train_dataloader.dataset),
        batch_size=cfg.train_dataloader.batch_size,
        iterations=runner.iter,
        images_per_second=round(cfg.train_dataloader.batch_size / seconds, 1),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or 'CPU',
        versions=dict(
            python=platform.python_version(),
            torch=torch.__version__,
            mmengine=mmengine.__version__,
            mmpretrain=mmpretrain.__version__,
            mmresattn=mmresattn.__version__,
        ),
    )
    draw(lines, work_dir / 'curve.png')
    if args.holdout:
        record['held_out_accuracy'] = [line['accuracy/top1'] for line in lines if 'accuracy/top1' in line][-1]
    else:
        checkpoint, weights = latest_checkpoint(work_dir), work_dir / f'{Path(args.config).stem}.safetensors'
        accuracy = test_accuracy(recipe, checkpoint, work_dir / 'test')
        tool('model_converters/publish_weights.py', recipe, checkpoint, weights)
        half = test_accuracy(recipe, weights, work_dir / 'test_half')
        record.update(test_error=round(100 - accuracy, 2), test_error_of_half_precision=round(100 - half, 2))
        if accuracy - half > TOLERANCE:
            weights.unlink()
    if args.unfinished:
        args.unfinished.unlink(missing_ok=True)
    record_file.write_text(json.dumps(record, indent=2) + '\n')
    print(record_file.read_text())


if __name__ == '__main__':
    sys.exit(run_tool(main))
