"""Write captions and counts of the BCCD blood cells from their boxes.

python tools/dataset_converters/blood_cells.py data/bccd

reads data/bccd/annotations/{train,val,test}.json (COCO's layout) and writes data/bccd/captions.json (Karpathy's layout)
and data/bccd/red_{train,val,test}.csv, the numbers of red cells.
"""

import json
from pathlib import Path

from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.datasets.box_captions import describe_cells


def captions_of(file, split, first):
    """The images of a split: `white` has the boxes (x1, y1, x2, y2) of white cells, `red` the number of red ones."""
    data = json.loads(file.read_text())
    names = {category['id']: category['name'] for category in data['categories']}
    for number, image in enumerate(data['images'], first):
        boxes = dict(WBC=[], RBC=[], Platelets=[])
        for annotation in data['annotations']:
            if annotation['image_id'] == image['id']:
                x, y, width, height = annotation['bbox']
                boxes[names[annotation['category_id']]].append([x, y, x + width, y + height])
        caption = describe_cells(boxes['WBC'], len(boxes['RBC']), (image['height'], image['width']))
        yield dict(
            imgid=number,
            filename=image['file_name'],
            split=split,
            sentences=[dict(raw=caption)],
            white=boxes['WBC'],
            red=len(boxes['RBC']),
        )


def main(argv=None):
    parser = ArgumentParser(description='Write captions and counts of the BCCD blood cells from their boxes.')
    parser.add_argument('folder', type=Path, help='with annotations/{train,val,test}.json')
    parser.add_argument('--out', type=Path, help='folder to write into; default: FOLDER')
    args = parser.parse_args(argv)

    out = args.out or args.folder
    images = []
    for split in ('train', 'val', 'test'):
        found = list(captions_of(args.folder / 'annotations' / f'{split}.json', split, len(images)))
        lines = ['file,red', *(f'{image["filename"]},{image["red"]}' for image in found)]
        (out / f'red_{split}.csv').write_text('\n'.join(lines) + '\n')
        images += found
    (out / 'captions.json').write_text(json.dumps(dict(images=images)))
    print(f'{len(images)} captions and counts written to {out}')


if __name__ == '__main__':
    run_tool(main)
