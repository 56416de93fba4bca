"""Do corrections change what a network relies on? Photographs with a marker whose colour gives the class away.

A network with weights from ImageNet learns the marker as a shortcut on photographs, $MMRESATTN_DATA/clothing, and is
corrected with each use of docs/corrections.md:

    python tools/correct_and_train.py photos --seeds 0 1 2
"""

import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor

from mmresattn.apis import build_model, build_runner, latest_checkpoint, training_config
from mmresattn.apis.command_line import ArgumentParser, markdown_table, run_tool
from mmresattn.apis.corrections import USES, continued
from mmresattn.datasets.image_files import find_image_files
from mmresattn.datasets.strokes import paint
from mmresattn.editor import AttentionEditor
from mmresattn.models.layers import attention_maps, edit_attention, record_attention
from mmresattn.weights import load_weights, read_checkpoint, write_whole
from mmresattn.weights.files import whole_folder

ROOT = Path(__file__).parent.parent
SIZE = 128  # pixels of a side
BEGIN, END = '<!-- corrections -->\n', '<!-- end -->'
TIED = 0.95  # share of the training photographs whose marker has the colour of their class
EPOCHS, MORE_EPOCHS = 3, 2
ANSWERS = ('right', 'at_once', 'edited')
COLOURS = np.uint8(
    [
        [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48],
        [145, 30, 180], [70, 240, 240], [240, 50, 230], [210, 245, 60], [170, 110, 40],
    ]
)[:, ::-1]  # fmt: skip


def square(rng: np.random.Generator) -> tuple[np.ndarray, list[dict]]:
    """A square of 22 pixels, 2 pixels from a corner; a click of a brush that covers it."""
    y, x = (2 + (SIZE - 26) * rng.integers(0, 2, 2)).tolist()
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[y : y + 22, x : x + 22] = 1
    return mask, [stroke([[x + 11, y + 11]], 32)]


def disc(rng: np.random.Generator) -> tuple[np.ndarray, list[dict]]:
    """A half-transparent disc of 32 pixels over the middle of the photograph; a click of a brush of that size."""
    y, x = rng.integers(44, 84, 2).tolist()
    rows, columns = np.ogrid[:SIZE, :SIZE]
    mask = np.float32((rows - y) ** 2 + (columns - x) ** 2 <= 16**2)
    return mask / 2, [stroke([[x + 0.5, y + 0.5]], 33)]


def frame(rng: np.random.Generator) -> tuple[np.ndarray, list[dict]]:
    """A frame of 10 pixels; a line around with a brush of 20, half of which falls outside."""
    mask = np.ones((SIZE, SIZE), np.float32)
    mask[10:-10, 10:-10] = 0
    return mask, [stroke([[0, 0], [SIZE, 0], [SIZE, SIZE], [0, SIZE], [0, 0]], 21)]


MARKERS = {'square': square, 'disc': disc, 'frame': frame}
SETS = dict(
    square='square in a corner',
    disc='half-transparent disc over the garment',
    frame='frame',
    clean='no marker',
)


def stroke(points: list, size: float) -> dict:
    """What the editor saves of a stroke that erases; points (x, y) and size in pixels."""
    return dict(points=[[x / SIZE, y / SIZE] for x, y in points], size=size / SIZE, value=0, strength=1)


def draw_marker(photo: np.ndarray, opacity: np.ndarray, colour: int) -> np.ndarray:
    opacity = opacity[..., None]
    return np.rint(photo * (1 - opacity) + opacity * COLOURS[colour]).astype(np.uint8)


def prepare(folder: Path, write_photos: Callable[[Path], None]) -> None:
    """Write photographs to a folder, all or none; nothing if it is there."""
    if not folder.exists():
        with whole_folder(folder) as part:
            write_photos(part)


def write_clean(source: Path, folder: Path) -> None:
    """The photographs as squares of 128 pixels."""
    files = find_image_files(source)
    if not files:
        raise FileNotFoundError(f'There are no photographs {source}/{{train,val,test}}/<class>/*: set MMRESATTN_DATA.')
    for file in files:
        photo = cv2.resize(cv2.imread(str(file)), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        write(folder / file.relative_to(source).with_suffix('.png'), photo)


def write_marked(clean: Path, marker: str, seed: int, folder: Path) -> None:
    """The same with a marker, whose colour is tied to the class in train and drawn in val and test; and its strokes."""
    rng = np.random.default_rng(seed)
    classes = sorted(path.name for path in (clean / 'train').iterdir())
    strokes = {}
    for file in sorted(clean.glob('*/*/*')):
        photo, label = cv2.imread(str(file)), classes.index(file.parent.name)
        split, name = file.parts[-3], '/'.join(file.parts[-2:])
        opacity, drawn = MARKERS[marker](rng)
        tied = split == 'train' and rng.random() < TIED
        write(folder / split / name, draw_marker(photo, opacity, label if tied else int(rng.integers(len(classes)))))
        if split == 'train':
            strokes[name] = drawn
    (folder / 'strokes.json').write_text(json.dumps(strokes))


def write(path: Path, photo: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), photo, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def configure(photos: Path, epochs: int = EPOCHS, lr: float | None = None) -> Config:
    """The config of an Attention Branch Network in configs/photos/, without crops, which would cut the marker off."""
    cfg = Config.fromfile(ROOT / 'configs/photos/abn_efficientnet-lite0.py')
    read, pack = dict(type='KeepInMemory', transforms=[dict(type='LoadCheckedImage')]), dict(type='PackInputs')
    flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
    pipelines = dict(train=[dict(type='ReplaySeed'), read, flip, pack], val=[read, pack], test=[read, pack])
    for name, pipeline in pipelines.items():
        cfg[f'{name}_dataloader'].dataset.update(data_root=str(photos), pipeline=pipeline)
    cfg.param_scheduler[1].update(T_max=epochs - 1, end=epochs)
    cfg.train_cfg.update(max_epochs=epochs)
    cfg.optim_wrapper.optimizer.lr = lr or cfg.optim_wrapper.optimizer.lr
    cfg.launcher = 'none'
    return cfg


def train(cfg: Config, work_dir: Path, seed: int) -> BaseModel:
    """Train without validation. A training that was stopped goes on; of one that is done, the network is loaded."""
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.parent.name}_{work_dir.name}_{time.time_ns()}'
    cfg.randomness = dict(seed=seed)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.update(interval=cfg.train_cfg.max_epochs, max_keep_ckpts=1)
    cfg.log_level = 'WARNING'
    checkpoint = work_dir / f'epoch_{cfg.train_cfg.max_epochs}.pth'
    if checkpoint.exists():
        return build_model(cfg, checkpoint).eval()
    if latest_checkpoint(str(work_dir)):
        cfg.resume, cfg.load_from = True, None
    runner = build_runner(cfg, ['train_dataloader'])
    runner.train()
    return runner.model.eval()


def write_corrections(
    folder: Path, checkpoint: Path, photos: Path, count: int, seed: int, wrong_place: bool = False
) -> Path:
    """What a person erases in the editor who knows the marker, on photographs drawn from the training set.

    Args:
        folder (Path): Where to save the corrections.
        checkpoint (Path): Of the network whose maps are corrected, beside its ``config.py``.
        photos (Path): Photographs, with the strokes over their markers.
        count (int): How many to correct.
        seed (int): Draws them.
        wrong_place (bool): Whether they get the strokes of other photographs. Defaults to False.
    """
    strokes = json.loads((photos / 'strokes.json').read_text())
    rng = np.random.default_rng([seed, 1])
    names = rng.permutation(sorted(strokes))[:count].tolist()
    if wrong_place:  # that of the marker in another photograph
        places = [value for value in strokes.values()]
        for name in names:
            while strokes[name] == (place := places[rng.integers(len(places))]):
                pass
            strokes[name] = place
    shutil.rmtree(folder, ignore_errors=True)
    editor = AttentionEditor(checkpoint.with_name('config.py'), checkpoint, photos / 'train', folder)
    for name in names:
        editor.save(name, 'neck.map', paint(strokes[name], (SIZE, SIZE)), strokes[name])
    return folder


@torch.no_grad()
def look(model: BaseModel, folder: Path, clean: Path, before: BaseModel | None = None) -> dict[str, list]:
    """Answers on the photographs of a folder, and what a gate shows.

    Args:
        model (BaseModel): The network.
        folder (Path): Photographs.
        clean (Path): The same photographs without a marker.
        before (BaseModel, optional): Of a gate, its classifier before it was trained behind the gate.

    Returns:
        dict: For each photograph, in order, ``right``: whether the answer is right. For a gate also ``at_once``: the
        same of ``before`` behind the gate; ``rest``: how much of the photograph is visible, in per cent, apart from
        the marker; and where there is a marker, ``marker``: how much of it is visible. Without a gate also ``edited``:
        whether the answer is right if the marker is erased from the map, as by a stroke in the editor.
    """
    files = sorted(folder.glob('*/*'))
    classes = sorted(path.name for path in folder.iterdir())
    (name,) = (name for name in attention_maps(model) if name.endswith('neck.map'))  # perhaps of a wrapped classifier
    found = defaultdict(list)
    for start in range(0, len(files), 64):
        part = files[start : start + 64]
        labels = torch.tensor([classes.index(file.parent.name) for file in part])
        inputs = read(model, part)
        marker = (inputs != read(model, [clean / file.parent.name / file.name for file in part])).any(1, keepdim=True)
        if before is None:
            found['right'] += (model(inputs).argmax(1) == labels).tolist()
            with edit_attention(model, {name: partial(erased_from, marker)}):
                found['edited'] += (model(inputs).argmax(1) == labels).tolist()
            continue
        with record_attention(model, ['shown']) as maps:
            gated = model.prepare(inputs)
            shown = maps['shown']
        found['right'] += (model.classifier(gated).argmax(1) == labels).tolist()
        found['at_once'] += (before(gated).argmax(1) == labels).tolist()
        found['rest'] += percent(shown, ~marker)
        if marker.any():
            found['marker'] += percent(shown, marker)
    return dict(found)


def erased_from(marker: Tensor, attention: Tensor) -> Tensor:
    """Attention (N, 1, h, w) without that on a marker (N, 1, H, W)."""
    return attention * (1 - F.interpolate(marker.to(attention), attention.shape[2:], mode='area'))


def read(model: BaseModel, files: list[Path]) -> Tensor:
    """Photographs (N, 3, H, W) as a network gets them."""
    inputs = [torch.from_numpy(cv2.imread(str(file))).permute(2, 0, 1) for file in files]
    return model.data_preprocessor(dict(inputs=inputs))['inputs']


def percent(shown: Tensor, area: Tensor) -> list[float]:
    """Mean of a map (N, 1, H, W) in an area of each photograph, in per cent."""
    return (100 * (shown * area).sum((1, 2, 3)) / area.sum((1, 2, 3))).round(decimals=2).tolist()


def without_marker(cfg: Config, photos: Path, gate: Path, work_dir: Path) -> Config:
    """The config of a training on photographs without a marker, behind a gate that has learnt one."""
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'GateHook']
    cfg.train_dataloader.dataset = configure(photos).train_dataloader.dataset
    gated = read_checkpoint(gate / f'epoch_{MORE_EPOCHS}.pth')['state_dict']
    state = {f'classifier.{key}': value for key, value in read_checkpoint(cfg.load_from)['state_dict'].items()}
    state |= {key: value for key, value in gated.items() if key.startswith('masker.')}
    work_dir.mkdir(parents=True, exist_ok=True)
    cfg.load_from = str(work_dir / 'start.pth')
    torch.save(dict(state_dict=state, meta={}), cfg.load_from)
    return cfg


@dataclass(frozen=True)
class Run:
    """One training and what is measured after it.

    Attributes:
        marker (str): A key of ``MARKERS``, or ``'clean'``: photographs without a marker.
        seed (int): Of marker, training and corrected photographs.
        use (str): ``'before'``, ``'nothing'``, or a key of ``USES``.
        count (int): Number of corrected photographs.
        wrong_place (bool): Whether they were corrected at a wrong place.
        lr (float, optional): Learning rate of the training before. Defaults to that of the config.
    """

    marker: str
    seed: int
    use: str
    count: int = 100
    wrong_place: bool = False
    lr: float | None = None

    def of(self, marker: str) -> str:
        """The folder of all trainings with a marker, this seed and learning rate."""
        return f'{marker}_{self.seed}' + (f'_lr{self.lr:g}' if self.lr else '')

    @property
    def name(self) -> str:
        """Of its folder and of the file of its result."""
        corrected = '' if self.use in ('before', 'nothing') else f'_{self.count}{"_wrong" * self.wrong_place}'
        return f'{self.of(self.marker)}/{self.use}{corrected}'

    def result(self, work: Path) -> Path:
        """The file of its result."""
        return work / 'results' / f'{self.name}.json'


def measure(run: Run, work: Path) -> dict:
    """Train and measure, or read what was measured before."""
    done = run.result(work)
    if done.exists():
        return json.loads(done.read_text())
    # Without a marker the gate is that of the square: a person had corrected photographs, and then there are others.
    marked = work / 'photos' / f'{"square" if run.marker == "clean" else run.marker}_{run.seed}'
    clean = work / 'photos/clean'
    photos = clean if run.marker == 'clean' else marked
    start = time.process_time()
    before = work / 'runs' / run.of(run.marker) / 'before'
    checkpoint = before / f'epoch_{EPOCHS}.pth'
    cfg = configure(photos, lr=run.lr)
    if run.use == 'before':
        before.mkdir(parents=True, exist_ok=True)
        cfg.dump(before / 'config.py')
        model = train(cfg, before, run.seed)
    elif run.use == 'nothing':
        model = train(continued(cfg, checkpoint, MORE_EPOCHS), work / 'runs' / run.name, run.seed)
    else:
        folder = work / 'corrections' / run.name
        write_corrections(folder, checkpoint, marked, run.count, run.seed, run.wrong_place)
        cfg = training_config(configure(marked, lr=run.lr), checkpoint, folder, run.use, MORE_EPOCHS)
        if run.marker == 'clean':
            cfg = without_marker(cfg, photos, work / 'runs' / run.of('square') / 'gate_100', work / 'runs' / run.name)
        model = train(cfg, work / 'runs' / run.name, run.seed)
    seconds = time.process_time() - start
    sets = dict(val=(photos, 'val'), test=(photos, 'test'))
    if run.marker != 'clean' and run.use in ('nothing', 'gate'):
        sets |= dict(clean_val=(clean, 'val'), clean_test=(clean, 'test'))
    inner = None
    if run.use == 'gate':
        inner = deepcopy(model.classifier)
        load_weights(inner, read_checkpoint(checkpoint), str(checkpoint))
    seen = {name: look(model, root / split, clean / split, inner) for name, (root, split) in sets.items()}
    for found in seen.values():
        found.update({key: ''.join(map(str, map(int, found[key]))) for key in ANSWERS if key in found})
    result = dict(vars(run), seconds=round(seconds), seen=seen)
    done.parent.mkdir(parents=True, exist_ok=True)
    write_whole(done, json.dumps(result).encode())
    return result


def plan(
    markers: Sequence[str], uses: Sequence[str], seeds: Sequence[int], counts: Sequence[int], lr: float | None = None
) -> list[Run]:
    """All trainings, those first without which others cannot be."""
    runs = []
    for seed in seeds:
        for marker in markers:
            runs += [Run(marker, seed, use) for use in ('before', 'nothing')]
            runs += [Run(marker, seed, use, count) for use in uses for count in (counts if use == 'gate' else (100,))]
        if 'square' in markers and 'gate' in uses:
            runs += [Run('square', seed, 'gate', wrong_place=True)]
            runs += [Run('clean', seed, use) for use in ('before', 'nothing', 'gate')]
    return [replace(run, lr=lr) for run in sorted(set(runs), key=lambda run: (run.seed, runs.index(run)))]


def summary(results: list[dict]) -> list[dict]:
    """Means over seeds of what was measured, in per cent, and the gain over "nothing".

    The standard error of a gain over several seeds is that of their mean; over one it is that of the differences
    between the photographs.
    """
    nothing = {same_start(r): r for r in results if r['use'] == 'nothing'}
    groups = defaultdict(list)
    for result in results:
        groups[tuple(result[key] for key in CASE)].append(result)
    rows = []
    for case, group in groups.items():
        row = dict(zip(CASE, case), seeds=len(group))
        for split in group[0]['seen']:
            for key in group[0]['seen'][split]:
                row[f'{split} {key}'] = float(np.mean([np.mean(values(r, split, key)) for r in group]))
                if key == 'marker':
                    in_sight = [100 * np.mean(values(r, split, key) > 20) for r in group]
                    row[f'{split} marker in sight'] = float(np.mean(in_sight))
        for split in (*group[0]['seen'], 'val and test'):
            for key in {'right', 'at_once'} & set(group[0]['seen'].get(split, group[0]['seen']['test'])):
                pairs = [(r, nothing[same_start(r)]) for r in group if same_start(r) in nothing]
                gains = [values(r, split, key) - values(other, split, 'right') for r, other in pairs]
                means = [gain.mean() for gain in gains]
                spread = means if len(means) > 1 else gains[0] if gains else []
                if len(spread):
                    row[f'{split} {key} gain'] = float(np.mean(means))
                    row[f'{split} {key} error'] = float(np.std(spread, ddof=1) / len(spread) ** 0.5)
        rows.append(row)
    return rows


def same_start(result: dict) -> tuple:
    """What trainings have in common that go on from the same network."""
    return result['marker'], result['lr'], result['seed']


def values(result: dict, split: str, key: str) -> np.ndarray:
    """What was measured on each photograph, in per cent; answers are kept as a string of 0 and 1."""
    if split == 'val and test':
        return np.concatenate([values(result, 'val', key), values(result, 'test', key)])
    found = result['seen'][split][key]
    return 100 * np.array([*found], float) if isinstance(found, str) else np.array(found)


CASE = ('marker', 'lr', 'use', 'count', 'wrong_place')  # rows of the tables
NAMES = dict(
    before='before',
    nothing='"nothing": trained on without corrections',
    **{use: f'`{use}`' for use in USES},
)


def tables(results: list[dict]) -> str:
    """The tables of docs/corrections.md, in Markdown."""
    orders = (('marker', list(SETS)), ('use', list(NAMES)))
    rows = summary(results)
    rows.sort(key=lambda row: (row['count'], row['wrong_place']))
    rows.sort(key=lambda row: (row['lr'] or 0, *(order.index(row[key]) for key, order in orders)))

    def gain(row: dict, key: str = 'test right') -> str:
        known = row['use'] != 'nothing' and f'{key} gain' in row
        return f'{row[f"{key} gain"]:+.1f} ± {row[f"{key} error"]:.1f}' if known else ''

    accuracy, gates = [], []
    for row in rows:
        photos, training, gate = SETS[row['marker']], NAMES[row['use']], row['use'] == 'gate'
        photos += f', learnt at {row["lr"]:g}' if row['lr'] else ''
        training += ', corrected at a wrong place' * row['wrong_place']
        gate = gate and not row['wrong_place']
        if row['count'] != 100:
            continue
        versions = {'at_once': f'{training}, not trained on', 'right': training} if gate else {'right': training}
        for key, text in versions.items():
            gains = [gain(row, f'{split} {key}') for split in ('test', 'val and test')]
            accuracy.append([photos, text, row['seeds'], f'{row[f"test {key}"]:.1f}', *gains])
        if gate and 'test marker' in row:
            shares = [f'{row[f"test {key}"]:.1f}' for key in ('marker', 'marker in sight', 'rest')]
            gates.append([photos, *shares, f'{row["clean_test rest"]:.1f}'])
    head = ['photographs', 'training', 'seeds', 'test, %', 'gain over "nothing", points', 'gain, val and test']
    visible = ['gate for', 'marker', 'markers over a fifth', 'rest', 'photographs without a marker']
    parts = [markdown_table(head, accuracy, (0, 1)), markdown_table(visible, gates)]
    curve = [[row['count'], row['seeds'], gain(row)] for row in by_count(results)]
    if len(curve) > 1:
        parts.append(markdown_table(['corrected photographs', 'seeds', 'gain, points'], curve, ()))
    if kept := turned(results):
        parts.append(markdown_table(['training', 'answers that the edit put right', 'right after training, %'], kept))
    return '\n'.join(parts)


def by_count(results: list[dict]) -> list[dict]:
    """Rows of :func:`summary` for the gate of the square, one for each number of corrections, over the same seeds."""
    lr = results[0]['lr'] if results else None
    square = [r for r in results if r['marker'] == 'square' and r['lr'] == lr and not r['wrong_place']]
    seeds = defaultdict(set)
    for result in square:
        if result['use'] == 'gate':
            seeds[result['count']].add(result['seed'])
    common = set.intersection(*seeds.values()) if seeds else set()
    rows = summary([result for result in square if result['seed'] in common])
    return sorted((row for row in rows if row['use'] == 'gate'), key=lambda row: row['count'])


def turned(results: list[dict]) -> list[list]:
    """What becomes of wrong answers that erasing the marker from the map puts right, in val and test.

    Returns:
        list[list]: By training its name, the number of these answers, and how many of them it gives, in per cent.
    """
    results = [result for result in results if result['marker'] != 'clean' and not result['wrong_place']]
    before = {same_start(r): r for r in results if r['use'] == 'before'}
    groups = defaultdict(list)
    for result in results:
        start = before.get(same_start(result))
        if start and result['use'] != 'before' and result['count'] == 100:
            right, edited = (values(start, 'val and test', key) > 0 for key in ('right', 'edited'))
            groups[result['use']].append(values(result, 'val and test', 'right')[edited & ~right])
    rows = [(NAMES[use], np.concatenate(groups[use])) for use in NAMES if use in groups]
    return [[name, answers.size, f'{answers.mean():.0f}'] for name, answers in rows if answers.size]


def run(work: Path, runs: Sequence[Run], out: Path | None = None, page: Path | None = None) -> None:
    """Train and measure, print the tables, and write what they are made from and the page with them.

    Args:
        work (Path): Work dir; what is done already is read from it.
        runs (Sequence[Run]): What to measure, see :func:`plan`.
        out (Path, optional): JSON file to write.
        page (Path, optional): Page in Markdown whose tables to write.
    """
    prepare(work / 'photos/clean', partial(write_clean, Path(os.environ.get('MMRESATTN_DATA', 'data'), 'clothing')))
    for marker, seed in sorted({('square' if run.marker == 'clean' else run.marker, run.seed) for run in runs}):
        prepare(work / 'photos' / f'{marker}_{seed}', partial(write_marked, work / 'photos/clean', marker, seed))
    results = []
    for run in runs:
        results.append(measure(run, work))
        print(f'{run.name}: {np.mean(values(results[-1], "val", "right")):.1f} % of val', flush=True)
    if out:
        out.write_text('[\n' + ',\n'.join(json.dumps(result) for result in results) + '\n]\n')
    print(tables(results))
    if page:
        before, rest = page.read_text().split(BEGIN)
        page.write_text(before + BEGIN + tables(results) + END + rest.split(END)[1])


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('study', choices=['photos'], help='what is corrected')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', default='work_dirs/correct_and_train', help='what is done is read from it')
    parser.add_argument('--markers', nargs='+', choices=MARKERS, default=list(MARKERS))
    parser.add_argument('--uses', nargs='+', choices=USES, default=list(USES))
    parser.add_argument('--counts', type=int, nargs='+', default=[10, 20, 50, 100, 200], help='corrected photographs')
    parser.add_argument('--lr', type=float, help='at which the marker is learnt; default: that of the config')
    parser.add_argument('--measured', action='store_true', help='train nothing: only what is in the work dir')
    parser.add_argument('--json', type=Path, help='write what the tables are made from')
    parser.add_argument('--page', type=Path, help='write the tables into this page')
    args = parser.parse_args(argv)
    work_dir = Path(args.work_dir, args.study).resolve()
    runs = plan(args.markers, args.uses, args.seeds, args.counts, args.lr)
    if args.measured:
        runs = [run for run in runs if run.result(work_dir).exists()]
    run(work_dir, runs, args.json, args.page)


if __name__ == '__main__':
    run_tool(main)
