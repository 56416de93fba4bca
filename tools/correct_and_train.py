"""Train, find mistakes, correct maps of attention, train from them: does it help on images that nobody corrected?

An Attention Branch Network is trained; its mistakes on a part of the images, the editing set, get corrected maps, by
the same code that saves what a person paints on the page of tools/attention_editor.py; and the network is trained on,
as by configs/abn/abn-resnet20-edited_cifar100.py, with these maps, and, from the same weights, on the same images and
for as long, without them. All three are tested on images that were in neither set.

A rule stands in for the person:

- ``digits``: scikit-learn's digits on a noisy ground, beside a coloured square. In training the colour goes with the
  digit, nine times of ten; in the other sets it says nothing. The rule: attend to the digit, white on the ground.
- ``cifar10``: data/cifar10/{train,test}/<class>/*, or under $MMRESATTN_DATA; a fifth of train is the editing set. The
  rule: attend to where the network itself, told the right class, finds it (Grad-CAM).

    python tools/correct_and_train.py digits --seeds 0 1 2

With ``photos`` a network with weights from ImageNet learns a shortcut on photographs, $MMRESATTN_DATA/clothing, and is
corrected with each use of docs/corrections.md:

    python tools/correct_and_train.py photos --seeds 0 1 2
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmresattn.apis import build_runner
from mmresattn.apis.command_line import ArgumentParser, markdown_table, run_tool
from mmresattn.editor import AttentionEditor
from mmresattn.visualization import class_activation_maps
from mmresattn.weights.files import whole_folder

CONFIG = Path(__file__).parent.parent / 'configs/abn/abn-resnet20-edited_cifar100.py'
SETS = ('train', 'edit', 'test')
MARKERS, PHOTO_USES = ('square', 'disc', 'frame'), ('augment', 'gradient_penalty', 'gate', 'map_loss')
ARMS = {'before': 'before', 'control': 'trained on without maps', 'corrected': 'trained on with corrected maps'}


def write_digits(folder: Path) -> None:
    """900 digits to train on, 100 to edit, 797 to test, as images of 32x32."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    colours = cv2.cvtColor(np.uint8([[(18 * k, 255, 255) for k in range(10)]]), cv2.COLOR_HSV2BGR)[0]
    for place, index in enumerate(rng.permutation(len(images))):
        split = SETS[(place >= 900) + (place >= 1000)]
        label = int(labels[index])
        digit = cv2.resize(np.float32(images[index].reshape(8, 8) * 255 / 16), (16, 16))
        picture = rng.integers(0, 100, (32, 32, 3)).astype(np.float32)
        top, left = rng.integers(0, 17, 2)
        ground = picture[top : top + 16, left : left + 16]
        ground[:] = np.maximum(ground, digit[..., None])
        colour = label if split == 'train' and rng.random() < 0.9 else rng.integers(10)
        # The square is 5x5, above or below the digit, where there is more room.
        y = rng.integers(0, top - 4) if top >= 8 else rng.integers(top + 16, 28)
        x = rng.integers(28)
        picture[y : y + 5, x : x + 5] = colours[colour]
        file = folder / split / str(label) / f'{index:04d}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), picture.astype(np.uint8))


def link_cifar10(folder: Path) -> None:
    """Four fifths of the training images to train on, a fifth to edit, and the test images, as links."""
    root = Path(os.environ.get('MMRESATTN_DATA', 'data'), 'cifar10').resolve()
    for part in ('train', 'test'):
        files = sorted(root.glob(f'{part}/*/*'))
        if not files:
            raise FileNotFoundError(f'There are no images {root}/{part}/<class>/*: set MMRESATTN_DATA.')
        for place, file in enumerate(files):
            split = 'edit' if part == 'train' and place % 5 == 4 else part
            link = folder / split / file.parent.name / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)


def white(editor: AttentionEditor, names: Sequence[str]) -> list[np.ndarray]:
    """Maps (32, 32): where all colours are bright, and a pixel around."""
    maps = []
    for name in names:
        grey = editor.load(name).min(-1)
        ink = np.float32(cv2.medianBlur(grey, 3) > 110)
        maps.append(cv2.GaussianBlur(cv2.dilate(ink, np.ones((3, 3))), (3, 3), 0))
    return maps


def right_class(editor: AttentionEditor, names: Sequence[str]) -> list[np.ndarray]:
    """Maps (H, W) in [0, 1]: Grad-CAM of the right class, before the perception stage."""
    model, maps = editor.inferencer.model, []
    for i in range(0, len(names), 50):
        part = names[i : i + 50]
        pixels = torch.stack([torch.from_numpy(editor.load(name)).permute(2, 0, 1) for name in part])
        maps += list(class_activation_maps(model, pixels, [editor.label(name) for name in part]).cpu().numpy())
    return maps


@dataclass(frozen=True)
class Example:
    """Data, network, training and the rule."""

    prepare: Callable[[Path], None]
    rule: Callable[[AttentionEditor, Sequence[str]], list[np.ndarray]]
    backbone: dict
    flip: bool
    batch_size: int
    epochs: int
    epochs_on: int


EXAMPLES = {
    'digits': Example(write_digits, white, dict(type='CIFARResNet', depth=8), False, 32, 20, 10),
    'cifar10': Example(
        link_cifar10, right_class, dict(type='CIFARWideResNet', depth=16, widen_factor=2), True, 64, 12, 4
    ),
}


def configure(example: Example, data: Path, train: Path, maps: Path, work_dir: Path, args, seed: int) -> Config:
    """The config of a training, on the images in ``train`` and the maps of them in ``maps``."""
    cfg = Config.fromfile(CONFIG)
    classes = len(list(train.iterdir()))
    frozen = 2 if work_dir.name in ('control', 'corrected') else -1
    cfg.model.backbone = dict(**example.backbone, frozen_stages=frozen)
    cfg.model.head.num_classes = classes
    cfg.model.head.map_loss.loss_weight = args.map_loss_weight
    cfg.data_preprocessor.num_classes = classes
    for loader, folder in ((cfg.train_dataloader, train), (cfg.val_dataloader, data / 'test')):
        loader.dataset.update(data_root=str(folder), data_prefix='')
        loader.num_workers, loader.persistent_workers = 0, False
        loader.collate_fn = dict(type='default_collate')
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_dataloader.batch_size = example.batch_size
    load_map = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'LoadAttentionMap')
    load_map.update(map_root=str(maps), image_root=str(train))
    load_map.transforms = [step for step in load_map.transforms if example.flip or step.type != 'RandomFlip']
    epochs = example.epochs if frozen < 0 else example.epochs_on
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    cfg.optim_wrapper.optimizer.lr = 0.1 if frozen < 0 else 0.01
    cfg.param_scheduler = dict(type='CosineAnnealingLR', T_max=epochs, end=epochs, convert_to_iter_based=True)
    cfg.default_hooks.checkpoint.update(interval=epochs)
    cfg.randomness.seed = seed
    cfg.launcher = 'none'
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.parent.name}_{work_dir.name}_{time.time_ns()}'
    cfg.log_level = 'WARNING'
    return cfg


def train(cfg: Config) -> tuple[float, Path]:
    """Train; top-1 accuracy in per cent on the test images, and the checkpoint."""
    cfg.dump(Path(cfg.work_dir, 'config.py'))
    checkpoint = Path(cfg.work_dir, f'epoch_{cfg.train_cfg.max_epochs}.pth')
    runner: Runner = build_runner(cfg, ['train_dataloader', 'test_dataloader'])
    runner.train()
    return runner.message_hub.get_scalar('val/accuracy/top1').current(), checkpoint


def one_seed(example: Example, data: Path, work_dir: Path, args, seed: int) -> dict:
    """All three networks of a seed, and what was corrected."""
    no_maps = work_dir / 'no_maps'
    no_maps.mkdir(parents=True, exist_ok=True)
    cfg = configure(example, data, data / 'train', no_maps, work_dir / 'before', args, seed)
    Path(cfg.work_dir).mkdir(exist_ok=True)
    before, checkpoint = train(cfg)

    editor = AttentionEditor(Path(cfg.work_dir, 'config.py'), checkpoint, data / 'edit', work_dir / 'corrections')
    mistakes = editor.mistakes()
    for name, attention in zip(mistakes, example.rule(editor, mistakes)):
        editor.save(name, 'neck.map', attention)
    mended = sum(entry['after']['label'] == entry['label'] for entry in editor.log.saved.values())

    result = dict(seed=seed, edited=len(mistakes), of=len(editor.names), mended=mended, before=before)
    for arm, maps in (('control', no_maps), ('corrected', work_dir / 'corrections/maps/neck.map')):
        cfg = configure(example, data, data / 'both', maps, work_dir / arm, args, seed)
        cfg.load_from = str(checkpoint)
        Path(cfg.work_dir).mkdir(exist_ok=True)
        result[arm], _ = train(cfg)
    return result


def prepare(example: Example, data: Path) -> None:
    """Write the images, whole or not at all, and a folder of links to those of train and edit."""
    if data.exists():
        return
    with whole_folder(data) as part:
        example.prepare(part)
        for split in ('train', 'edit'):
            for file in part.glob(f'{split}/*/*'):
                link = part / 'both' / file.parent.name / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                target = file.readlink() if file.is_symlink() else Path('../..', split, link.parent.name, file.name)
                link.symlink_to(target)


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('example', choices=[*EXAMPLES, 'photos'])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--map-loss-weight', type=float, default=1.0, help='gamma of the loss of the maps')
    parser.add_argument('--work-dir', default='work_dirs/correct_and_train', help='a seed that is done is read from it')
    photos = parser.add_argument_group('photos')
    photos.add_argument('--markers', nargs='+', choices=MARKERS, default=MARKERS)
    photos.add_argument('--uses', nargs='+', choices=PHOTO_USES, default=PHOTO_USES)
    photos.add_argument('--counts', type=int, nargs='+', default=[10, 20, 50, 100, 200], help='corrected photographs')
    photos.add_argument('--measured', action='store_true', help='train nothing: only what is in the work dir')
    photos.add_argument('--json', type=Path, help='write what the tables are made from')
    photos.add_argument('--page', type=Path, help='write the tables into this page')
    args = parser.parse_args(argv)
    if args.example == 'photos':
        import correct_photos  # beside this file

        work_dir = Path(args.work_dir, 'photos').resolve()
        runs = correct_photos.plan(args.markers, args.uses, args.seeds, args.counts)
        if args.measured:
            runs = [run for run in runs if run.result(work_dir).exists()]
        correct_photos.run(work_dir, runs, args.json, args.page)
        return

    example = EXAMPLES[args.example]
    work_dir = Path(args.work_dir, args.example).resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    prepare(example, work_dir / 'images')
    results = []
    for seed in args.seeds:
        place = work_dir / f'weight{args.map_loss_weight:g}_seed{seed}'
        done = place / 'result.json'
        if not done.exists():
            start = time.monotonic()
            result = one_seed(example, work_dir / 'images', place, args, seed)
            done.write_text(json.dumps(result | dict(seconds=round(time.monotonic() - start))))
        results.append(json.loads(done.read_text()))

    header = ('seed', 'mistakes corrected', 'right after the edit', *ARMS.values(), 'seconds')
    rows = [
        (found['seed'], f'{found["edited"]} of {found["of"]}', found['mended'],
         *(f'{found[arm]:.2f} %' for arm in ARMS), found['seconds'])
        for found in results
    ]  # fmt: skip
    means = [f'{statistics.mean(found[arm] for found in results):.2f} %' for arm in ARMS]
    print(markdown_table(header, [*rows, ('mean', '', '', *means, '')], ()), end='')
    gains = [found['corrected'] - found['control'] for found in results]
    spread = f', standard deviation {statistics.stdev(gains):.2f}' if len(gains) > 1 else ''
    print(f'\nWith corrected maps against without: {statistics.mean(gains):+.2f} points{spread}.')


if __name__ == '__main__':
    run_tool(main)
