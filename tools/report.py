"""Write a report on a classifier: accuracy by class, confusions, calibration, and why it errs, as one HTML file.

python tools/report.py configs/resattn/attention56_digits.py work_dirs/attention56_digits/epoch_12.pth --out report.html
"""

from pathlib import Path

from mmengine.config import DictAction

from mmresattn.apis import load_classifier, read_config
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.evaluation.report import make_report


def main(argv=None):
    parser = ArgumentParser(description='Write a report on a classifier as one HTML file.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', type=Path, default=Path('report.html'), help='HTML file to write')
    parser.add_argument('--split', choices=['test', 'val', 'train'], default='test', help='images to report on')
    parser.add_argument('--layers', nargs='+', help='attention maps to show; default: the last four with positions')
    parser.add_argument('--shown', type=int, default=12, help='mistakes to show, and as many unsure answers')
    parser.add_argument('--max-images', type=int, help='report on so many images, drawn at random; default: all')
    parser.add_argument('--batch-size', type=int, default=32, help='images that run at once')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of the config: key=value')
    args = parser.parse_args(argv)

    model, loader = load_classifier(args.config, args.checkpoint, args.cfg_options, args.max_images, split=args.split)
    page = make_report(
        model,
        loader.dataset,
        read_config(args.config, args.cfg_options),
        title=Path(args.config).stem,
        subtitle=f'{args.checkpoint}, {args.split} images',
        shown=args.shown,
        layers=args.layers,
        batch_size=args.batch_size,
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(page, encoding='utf-8')
    print(f'Report on {len(loader.dataset)} images: {args.out}')


if __name__ == '__main__':
    run_tool(main)
