"""Draw docs/images/clothes.png: photographs, and below them the map of each network and Grad-CAM for its answer.

python .dev_scripts/draw_clothes.py                                  # the network of weights/
python .dev_scripts/draw_clothes.py CONFIG CHECKPOINT ...            # and others, with attention or without
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mmengine.registry import DefaultScope

from mmresattn.apis import AttentionInferencer
from mmresattn.visualization import (
    class_activation_maps,
    maps_in_view,
    overlay,
    place_maps,
    record_samples,
    save_figure,
    short_name,
    show_image,
)

ROOT = Path(__file__).resolve().parents[1]
NAME = 'clothing_abn_efficientnet-lite0'
SHIPPED = [str(ROOT / f'configs/photos/{NAME}.py'), str(ROOT / f'weights/{NAME}.safetensors')]
SHOWN = ('dress_0009', 'hat_0011', 'longsleeve_0042', 'outwear_0008', 'shoes_0026', 'shorts_0003', 't-shirt_0046')
SIDE = 224


def square(picture: np.ndarray) -> np.ndarray:
    """A picture in the middle of a transparent square."""
    framed = np.zeros((SIDE, SIDE, 4), np.uint8)
    top, left = ((SIDE - side) // 2 for side in picture.shape[:2])
    framed[top : top + picture.shape[0], left : left + picture.shape[1]] = np.dstack(
        [picture, np.full(picture.shape[:2], 255, np.uint8)]
    )
    return framed


def rows_of(config: str, checkpoint: str, files: list[Path]) -> dict[str, list[np.ndarray]]:
    """By label the pictures of the maps of a network."""
    inferencer = AttentionInferencer(config, checkpoint)
    model, pipeline = inferencer.model, inferencer.pipeline
    name = Path(config).stem.split('_')[0 if not config.endswith(f'{NAME}.py') else 1]
    rows: dict[str, list[np.ndarray]] = {}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for file in files:
            sample = pipeline(file, follow=True)
            record_samples(model, [sample])
            picture = show_image(sample.image)
            rows.setdefault('photograph', []).append(square(picture))
            for layer, attention in place_maps(model, sample).items():
                label = f'{name}\n{short_name(layer)}'
                rows.setdefault(label, []).append(square(overlay(picture, attention)))
            images = sample.packed['inputs'][None].to(next(model.parameters()).device)
            cam = maps_in_view(class_activation_maps(model, images), sample.view)[0]
            rows.setdefault(f'{name}\nGrad-CAM', []).append(square(overlay(picture, cam)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('models', nargs='*', metavar='CONFIG CHECKPOINT', help='further networks, in pairs')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/images/clothes.png', help='picture to write')
    args = parser.parse_args()
    files = [ROOT / f'docs/images/photos/{name}.jpg' for name in SHOWN]
    pairs = [*SHIPPED, *args.models]
    rows = {}
    for pair in zip(pairs[::2], pairs[1::2]):
        rows |= rows_of(*pair, files)
    figure = Figure(figsize=(1.25 * len(files) + 0.9, 1.28 * len(rows)), layout='constrained')
    figure.patch.set_alpha(0)
    axes = figure.subplots(len(rows), len(files), squeeze=False)
    for line, (label, pictures) in zip(axes, rows.items()):
        line[0].set_ylabel(label, fontsize=9, color='#7d858c')
        for axis, picture in zip(line, pictures):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[], frame_on=False)
    save_figure(figure, args.out, 110)
    print(args.out)


if __name__ == '__main__':
    main()
