"""Test a captioner of blood cells part by part, and whether it looks at the white cell when it says *white*.

python .dev_scripts/blood_captions.py configs/captioning/sat-soft_efficientnet-lite0_bccd.py CHECKPOINT

A caption is right in a part if the kinds of cells, the number of white or red ones, or the place of the white one
are those of the boxes. The pointing game asks whether the map of the word *white* is highest within the box of a white
cell.
"""

import json
from collections import Counter
from pathlib import Path

from mmengine.config import Config

import mmresattn  # noqa: F401
from mmresattn.apis import AttentionInferencer
from mmresattn.apis.command_line import ArgumentParser, print_table, run_tool
from mmresattn.datasets.box_captions import NUMBERS, parts_of
from mmresattn.evaluation import boxes_mask, pointing_game
from mmresattn.evaluation.faithfulness import baseline_maps
from mmresattn.visualization import ImageSources


def parse_args(argv=None):
    parser = ArgumentParser(description='Test a captioner of blood cells part by part.')
    parser.add_argument('config', help='config file with KarpathyCaptions of tools/dataset_converters/blood_cells.py')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='test', help='images to test on')
    parser.add_argument('--out', type=Path, help='JSON file for the numbers')
    return parser.parse_args(argv)


def compare(predicted: str, true: str) -> dict[str, bool]:
    """For each part that the true caption has, whether the other one says the same."""
    prediction, true = parts_of(predicted), parts_of(true)
    parts = dict(kind=prediction.kinds == true.kinds)
    for kind in ('white', 'red'):
        count = prediction.counts and prediction.counts[kind]
        parts[f'count of {kind}'] = count == true.counts[kind]
        near = count in NUMBERS and true.counts[kind] in NUMBERS
        parts[f'count of {kind} within 1'] = near and abs(NUMBERS.index(count) - NUMBERS.index(true.counts[kind])) < 2
    if true.place:
        parts['place'] = prediction.place == true.place
    return parts


def main(argv=None):
    args = parse_args(argv)
    dataset = Config.fromfile(args.config).test_dataloader.dataset
    images = json.loads(Path(dataset.data_root, dataset.ann_file).read_text())['images']
    true = {image['filename']: image for image in images if image['split'] == args.split}
    usual = Counter(image['sentences'][0]['raw'] for image in images if image['split'] == 'train').most_common(1)[0][0]
    inferencer = AttentionInferencer(args.config, args.checkpoint)
    folder = Path(dataset.data_root, dataset.data_prefix.img_path)
    sums: dict[str, list[list[bool]]] = {}
    samples = inferencer.read(ImageSources([str(folder / name) for name in true], strict=True), follow=False)
    for name, sample in zip(true, inferencer.predict(samples, batch_size=8)):
        prediction, sentence = sample.prediction, true[name]['sentences'][0]['raw']
        for part, right in compare(prediction.pred_caption, sentence).items():
            sums.setdefault(part, []).append([right, compare(usual, sentence)[part]])
        if true[name]['white'] and 'white' in prediction.pred_words:
            mask = boxes_mask(true[name]['white'], sample.image.shape[:2])
            attention = prediction.pred_attention[prediction.pred_words.index('white')].float().cpu()
            centre = baseline_maps(1, mask.shape)['centre'][0]
            sums.setdefault('pointing', []).append([pointing_game(attention, mask), pointing_game(centre, mask)])
    found = {
        part: dict(
            images=len(rows),
            model=sum(row[0] for row in rows) / len(rows),
            baseline=sum(row[1] for row in rows) / len(rows),
        )
        for part, rows in sums.items()
    }
    cells = [(part, str(row['images']), f'{row["model"]:.1%}', f'{row["baseline"]:.1%}') for part, row in found.items()]
    title = f'{Path(args.config).stem}, {args.split}: baseline is the most frequent caption, or the centre'
    print_table(title, ('part', 'images', 'model', 'baseline'), cells)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))


if __name__ == '__main__':
    run_tool(main)
