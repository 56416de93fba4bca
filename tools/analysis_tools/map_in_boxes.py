"""Do attention maps lie on objects? The share of each within the boxes of a COCO file, beside their share of the area.

python tools/analysis_tools/map_in_boxes.py configs/regression/abn_efficientnet-lite0_bccd.py CHECKPOINT \\
    data/bccd/annotations/test.json data/bccd/images --classes RBC
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from mmresattn.apis import AttentionInferencer
from mmresattn.apis.command_line import ArgumentParser, print_table, run_tool
from mmresattn.evaluation import boxes_mask, mass_in_mask, pointing_game
from mmresattn.visualization import REDUCTIONS


def read_boxes(file, classes):
    """By name of the image its size and boxes (x1, y1, x2, y2); images without boxes are left out."""
    data = json.loads(file.read_text())
    names = {category['id']: category['name'] for category in data['categories']}
    if unknown := set(classes or ()) - set(names.values()):
        raise ValueError(f'{file} has no classes {sorted(unknown)}; it has {sorted(names.values())}.')
    boxes = defaultdict(list)
    for annotation in data['annotations']:
        x, y, width, height = annotation['bbox']
        if not classes or names[annotation['category_id']] in classes:
            boxes[annotation['image_id']].append([x, y, x + width, y + height])
    return {
        image['file_name']: ((image['height'], image['width']), boxes[image['id']])
        for image in data['images']
        if boxes[image['id']]
    }


def main(argv=None):
    parser = ArgumentParser(description='Measure how much of each attention map lies within boxes.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('boxes', type=Path, help="boxes in COCO's layout")
    parser.add_argument('images', type=Path, help='folder of the images')
    parser.add_argument('--classes', nargs='+', help='names of the classes whose boxes count; default: all')
    parser.add_argument('--reduction', choices=REDUCTIONS, default=REDUCTIONS[0], help='of the channels')
    args = parser.parse_args(argv)

    images = read_boxes(args.boxes, args.classes)
    inferencer = AttentionInferencer(args.config, args.checkpoint)
    paths = [str(args.images / name) for name in images]
    shares, hits, area = defaultdict(list), defaultdict(list), []
    results = inferencer.stream(paths, attention=False, on_image=True, reduction=args.reduction, strict=True)
    for (shape, boxes), result in zip(images.values(), results):
        mask = boxes_mask(boxes, shape)
        area.append(mask.mean())
        for name, attention in result['attention_on_image'].items():
            shares[name].append(mass_in_mask(attention, mask))
            hits[name].append(pointing_game(attention, mask))
    rows = [(name, f'{np.mean(values):.1%}', f'{np.mean(hits[name]):.1%}') for name, values in shares.items()]
    title = f'{len(area)} images, boxes on {np.mean(area):.1%} of the area'
    print_table(title, ('map', 'share within boxes', 'peak within boxes'), rows)


if __name__ == '__main__':
    run_tool(main)
