"""Write captions of the BCCD blood cells from their boxes, as one file in Karpathy's layout.

python tools/dataset_converters/blood_captions.py data/bccd

reads data/bccd/annotations/{train,val,test}.json (COCO's layout) and writes data/bccd/captions.json.
"""

import json
from pathlib import Path

import mmresattn  # noqa: F401
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.datasets.box_captions import describe_cells


def parse_args(argv=None):
    parser = ArgumentParser(description='Write captions of the BCCD blood cells from their boxes.')
    parser.add_argument('folder', type=Path, help='with annotations/{train,val,test}.json')
    parser.add_argument('--out', type=Path, help='file to write; default: FOLDER/captions.json')
    return parser.parse_args(argv)


def captions_of(file, split, first):
    """The images of a split; `white` has the boxes (x1, y1, x2, y2) of the white cells."""
    data = json.loads(file.read_text())
    names = {category['id']: category['name'] for category in data['categories']}
    for number, image in enumerate(data['images'], first):
        boxes = dict(WBC=[], RBC=[], Platelets=[])
        for one in data['annotations']:
            if one['image_id'] == image['id']:
                x, y, width, height = one['bbox']
                boxes[names[one['category_id']]].append([x, y, x + width, y + height])
        caption = describe_cells(boxes['WBC'], len(boxes['RBC']), (image['height'], image['width']))
        yield dict(
            imgid=number,
            filename=image['file_name'],
            split=split,
            sentences=[dict(raw=caption)],
            white=boxes['WBC'],
        )


def main(argv=None):
    args = parse_args(argv)
    images = []
    for split in ('train', 'val', 'test'):
        images += captions_of(args.folder / 'annotations' / f'{split}.json', split, len(images))
    out = args.out or args.folder / 'captions.json'
    out.write_text(json.dumps(dict(images=images)))
    print(f'{len(images)} captions written to {out}')


if __name__ == '__main__':
    run_tool(main)
