"""Draw docs/images/correction.webp: a marker, its correction, and what a network looks at before and after the gate.

python tools/correct_and_train.py photos --markers square --uses gate --seeds 0      # trains; about 20 minutes
python .dev_scripts/draw_correction.py work_dirs/correct_and_train/photos
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.model import BaseModel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools'))

import correct_and_train  # noqa: E402

from mmresattn.apis import build_model, training_config  # noqa: E402
from mmresattn.datasets import Corrections  # noqa: E402
from mmresattn.models.classifiers import GatedClassifier  # noqa: E402
from mmresattn.models.layers import record_attention  # noqa: E402
from mmresattn.visualization import class_activation_maps, overlay  # noqa: E402

COLUMNS = 7
RIGHT, WRONG = '#2f9e44', '#e03131'


def load(cfg, checkpoint: Path) -> BaseModel:
    return build_model(cfg, checkpoint).eval()


def picture(file: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dir', type=Path, help='of tools/correct_and_train.py photos')
    parser.add_argument('--marker', choices=correct_and_train.MARKERS, default='square')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/images/correction.webp', help='picture to write')
    args = parser.parse_args()
    work, group = args.work_dir.resolve(), f'{args.marker}_0'
    photos, corrections = work / 'photos' / group, work / 'corrections' / group / 'gate_100'
    checkpoint = work / 'runs' / group / f'before/epoch_{correct_and_train.EPOCHS}.pth'
    cfg = correct_and_train.configure(photos)
    gated_cfg = training_config(cfg, checkpoint, corrections, 'gate', correct_and_train.MORE_EPOCHS)
    before = load(cfg, checkpoint)
    after = load(gated_cfg, work / 'runs' / group / f'gate_100/epoch_{correct_and_train.MORE_EPOCHS}.pth')

    rows: dict[str, list[tuple[np.ndarray, str, str]]] = {}

    def add(row: str, image: np.ndarray, text: str = '', colour: str = RIGHT) -> None:
        rows.setdefault(row, []).append((image, text, colour))

    by_class = {Path(name).parent.name: c for name, c in sorted(Corrections(corrections).by_image.items())}
    for name, correction in list(by_class.items())[:COLUMNS]:
        photo = picture(photos / 'train' / correction.image)
        erased = cv2.resize(correction.areas(photo.shape[:2])[0], photo.shape[1::-1], interpolation=cv2.INTER_AREA)[
            ..., None
        ]
        grey = np.full_like(photo, 128)
        add('painted over:\n7 of 100 training\nphotographs', np.uint8(photo * (1 - erased) + grey * erased), name)

    # Photographs that nobody corrected, one of each class, whose answer the correction puts right.
    classes = sorted(path.name for path in (photos / 'val').iterdir())
    for label, name in enumerate(classes):
        for file in sorted((photos / 'val' / name).glob('*')):
            inputs = correct_and_train.read(before, [file])
            with torch.no_grad():
                answers = [int(model(inputs).argmax(1)) for model in (before, after)]
            if answers[0] != label and answers[1] == label:
                show(add, before, after, file, [classes[answer] for answer in answers], name)
                break
        if len(rows.get('held-out\nphotograph', [])) == COLUMNS:
            break

    figure = Figure(figsize=(1.25 * COLUMNS + 1, 1.42 * len(rows)), layout='constrained')
    figure.patch.set_alpha(0)
    for line, (label, cells) in zip(figure.subplots(len(rows), COLUMNS, squeeze=False), rows.items()):
        line[0].set_ylabel(label, fontsize=9, color='#7d858c')
        for axis in line:
            axis.set(xticks=[], yticks=[], frame_on=False)
        for axis, (image, text, colour) in zip(line, cells):
            axis.imshow(image)
            axis.set_title(text, fontsize=9, color=colour, pad=2)
    figure.savefig(args.out, dpi=110, pil_kwargs=dict(quality=85))
    print(args.out)


def show(add, before: BaseModel, after: GatedClassifier, file: Path, answers: list[str], name: str) -> None:
    """A column: the photograph, and where each network looks for its answer."""
    photo, inputs = picture(file), correct_and_train.read(after, [file])
    pixels = torch.from_numpy(cv2.imread(str(file))).permute(2, 0, 1)[None]
    add('held-out\nphotograph', photo, name, '#7d858c')
    add('before:\nwhere it looks', overlay(photo, class_activation_maps(before, pixels)[0]), answers[0], WRONG)
    with torch.no_grad(), record_attention(after, ['shown']) as maps:
        after.prepare(inputs)
        shown = maps['shown'][0].permute(1, 2, 0).numpy()
    noise = np.random.default_rng(0).integers(0, 256, photo.shape)
    add('after:\nwhat it sees', np.uint8(photo * shown + noise * (1 - shown)))
    add('after:\nwhere it looks', overlay(photo, class_activation_maps(after, pixels)[0]), answers[1])


if __name__ == '__main__':
    main()
