"""Does a warm start pay? The study of docs/pretrained.md on CIFAR-10, for one thread of a CPU.

    OMP_NUM_THREADS=1 python .dev_scripts/warm_start.py work_dirs/warm_start --data data/cifar10

For each seed ResNet-164 is trained. Then three networks get the same additional processor time: that ResNet-164
trained on, Attention-236 that begins as it (PretrainedTrunk), and Attention-236 from nothing. All train in bfloat16.
Seconds become iterations by the time of a training step, which is measured first, with both networks taking turns, so
that other work on the machine does not favour one of them.

The same command again continues where it stopped: finished trainings are in OUT/results.json, their table in
OUT/results.md.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmresattn.apis import build_model, build_runner, latest_checkpoint
from mmresattn.apis.command_line import markdown_table
from mmresattn.utils import time_in_turns

ROOT = Path(__file__).parents[1]
NETWORKS = {
    'ResNet-164': dict(base='resnet164-cifar'),
    'Attention-236': dict(base='attention236-cifar', stem='conv'),  # 8 more units per stage, and masks
}


def trainings(first: float, more: float) -> dict[str, dict]:
    """The trainings of one seed, in their order: network, seconds, peak learning rate and start."""
    return {
        'ResNet-164': dict(network='ResNet-164', seconds=first, lr=0.1),
        'ResNet-164, trained on': dict(network='ResNet-164', seconds=more, lr=0.05, start='load_from'),
        'Attention-236 from it': dict(network='Attention-236', seconds=more, lr=0.05, start='PretrainedTrunk'),
        'Attention-236 from nothing': dict(network='Attention-236', seconds=more, lr=0.1),
    }


@HOOKS.register_module()
class ProcessorTimeHook(Hook):
    """Adds up the processor time of training iterations, over interruptions too."""

    def before_train(self, runner) -> None:
        self.total = getattr(self, 'total', 0.0)

    def before_train_iter(self, runner, **kwargs) -> None:
        self.begin = time.process_time()

    def after_train_iter(self, runner, **kwargs) -> None:
        self.total += time.process_time() - self.begin

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['processor_seconds'] = self.total

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if runner._resume:
            self.total = checkpoint['processor_seconds']


def shrink(data: Path, size: int, path: Path) -> None:
    """Write images of ``data/<class>/*`` at ``size`` x ``size`` as arrays."""
    files = sorted(data.glob('*/*'))
    classes = sorted({file.parent.name for file in files})
    images = [
        cv2.resize(mmcv.imread(file, channel_order='rgb'), (size, size), interpolation=cv2.INTER_AREA) for file in files
    ]
    labels = [classes.index(file.parent.name) for file in files]
    np.savez(path, images=np.stack(images), labels=np.array(labels), classes=np.array(classes))


def model(network: str) -> dict:
    return dict(
        type='ImageClassifier',
        backbone=dict(type='ResidualAttentionNet', arch=NETWORKS[network], recompute_norms=False),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=256, loss=dict(type='CrossEntropyLoss')),
    )


def step_seconds(size: int, batch: int, rounds: int = 15) -> dict[str, float]:
    """Processor time of a training step of each network, the median of rounds in which they take turns."""
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)

    def training_step(name: str) -> Callable[[], None]:
        net = build_model(Config(dict(model=model(name), default_scope='mmpretrain')))
        net.to(memory_format=torch.channels_last).init_weights()
        optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, nesterov=True)

        def step() -> None:
            optimizer.zero_grad()
            with torch.autocast('cpu', torch.bfloat16):
                loss = net(images, mode='tensor').float().square().mean()
            loss.backward()
            optimizer.step()

        return step

    times = time_in_turns({name: training_step(name) for name in NETWORKS}, rounds, clock=time.process_time)
    return {name: statistics.median(values) for name, values in times.items()}


def config(training: dict, iterations: int, seed: int, base: Path, work_dir: Path, arrays: Path, size: int) -> Config:
    """The config of one training: one cycle of SGD, images of ``size`` x ``size`` shifted and mirrored."""
    cfg = Config.fromfile(ROOT / 'configs/resattn/attention56_cifar10.py')
    cfg.merge_from_dict(
        dict(
            model=dict(_delete_=True, **model(training['network'])),
            data_preprocessor=dict(
                batch_transforms=[dict(type='BatchRandomCrop', padding=size // 8), dict(type='BatchRandomFlip')]
            ),
            optim_wrapper=dict(
                _delete_=True,
                type='AutocastOptimWrapper',
                optimizer=dict(type='SGD', lr=training['lr'], momentum=0.9, nesterov=True, weight_decay=5e-4),
            ),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=iterations // 10),
                dict(type='CosineAnnealingLR', by_epoch=False, begin=iterations // 10, end=iterations),
            ],
            train_cfg=dict(_delete_=True, by_epoch=False, max_iters=iterations),
            val_cfg=None,
            val_dataloader=None,
            val_evaluator=None,
            randomness=dict(seed=seed),
            launcher='none',
            work_dir=str(work_dir),
            default_hooks=dict(checkpoint=dict(interval=100, max_keep_ckpts=1), logger=dict(interval=50)),
            custom_hooks=[*cfg.custom_hooks, dict(type='ProcessorTimeHook')],
        )
    )
    dataset = dict(type='ImageArrays', pipeline=[dict(type='PackInputs')])
    for loader, part in ((cfg.train_dataloader, 'train'), (cfg.test_dataloader, 'test')):
        images = dict(dataset, data=str(arrays / f'{part}.npz'))
        loader.dataset = dict(type='InMemory', dataset=images)
        loader.update(num_workers=0, persistent_workers=False, collate_fn=dict(type='one_batch'))
    if work_dir.exists() and latest_checkpoint(str(work_dir)):
        cfg.resume = True
    elif training.get('start') == 'load_from':
        cfg.load_from = latest_checkpoint(str(base))
    if training.get('start') == 'PretrainedTrunk':
        cfg.model.init_cfg = dict(type='PretrainedTrunk', checkpoint=latest_checkpoint(str(base)))
    return cfg


def table(results: dict) -> str:
    """The results as Markdown: for each training images and accuracies, seed by seed."""
    rows = {}
    for key, found in results['trainings'].items():
        rows.setdefault(key.partition(', seed ')[0], []).append(found)
    cells = [
        (name, f'{found[0]["images"]:,}', ', '.join(f'{training["top1"]:.2f} %' for training in found))
        for name, found in rows.items()
    ]
    return markdown_table(('network', 'images trained on', 'top-1 of each seed'), cells, (0, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path)
    parser.add_argument('--data', type=Path, default=Path('data/cifar10'), help='{train,test}/<class>/*')
    parser.add_argument('--size', type=int, default=16, help='height and width of the images')
    parser.add_argument('--seconds', type=float, nargs=2, default=(900, 500), help='of ResNet-164, and additional ones')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for part in ('train', 'test'):
        if not (args.out / f'{part}.npz').exists():
            shrink(args.data / part, args.size, args.out / f'{part}.npz')
    file = args.out / 'results.json'
    results = json.loads(file.read_text()) if file.exists() else {}
    if not results:
        results = dict(step_seconds=step_seconds(args.size, batch=64), trainings={})
        file.write_text(json.dumps(results, indent=2) + '\n')
    plan = [(name, seed) for seed in args.seeds for name in trainings(*args.seconds)]
    for name, seed in plan:
        key = f'{name}, seed {seed}'
        if key in results['trainings']:
            continue
        training = trainings(*args.seconds)[name]
        order = 10 * seed + list(trainings(*args.seconds)).index(name)  # of the images: not that of a training before
        iterations = round(training['seconds'] / results['step_seconds'][training['network']])
        folders = [
            args.out / f'{other.lower().replace(",", "").replace(" ", "-")}-{seed}' for other in ('ResNet-164', name)
        ]
        runner = build_runner(
            config(training, iterations, order, *folders, args.out, args.size), ['train_dataloader', 'test_dataloader']
        )
        if runner.iter < iterations:
            runner.train()
        (hook,) = (hook for hook in runner.hooks if isinstance(hook, ProcessorTimeHook))
        results['trainings'][key] = dict(
            top1=runner.test()['accuracy/top1'],
            iterations=iterations,
            images=iterations * 64,
            processor_seconds=round(hook.total, 1),
        )
        file.write_text(json.dumps(results, indent=2) + '\n')
        file.with_suffix('.md').write_text(table(results))
        print(key, results['trainings'][key], flush=True)


if __name__ == '__main__':
    main()
