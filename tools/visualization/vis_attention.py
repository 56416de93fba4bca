"""Draw the attention maps of a trained model over an image, as PNG, SVG or PDF.

python tools/visualization/vis_attention.py photo.png configs/resattn/attention56_cifar10_fast.py \\
    weights/attention56_cifar10_fast.safetensors --out attention.pdf --reduction strongest --channels 2

python tools/visualization/vis_attention.py ... --masks            # features before, mask, features after
python tools/visualization/vis_attention.py ... --cam gradcam      # beside class activation maps
python tools/visualization/vis_attention.py ... --query 120 200    # self-attention from row 120, column 200
"""

import argparse

from mmengine.config import Config, DictAction
from rich.console import Console
from rich.table import Table

import mmresattn  # noqa: F401
from mmresattn.apis import AttentionInferencer
from mmresattn.models.layers import attention_maps
from mmresattn.visualization import CAM_METHODS, REDUCTIONS


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Draw attention maps over an image.')
    parser.add_argument('image', help='path or address of an image')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', default='attention.png', help='picture to write (.png, .svg, .pdf)')
    parser.add_argument('--layers', nargs='+', help='attention maps; default: all with positions')
    parser.add_argument('--list-layers', action='store_true', help='print the names for --layers and stop')
    parser.add_argument('--reduction', choices=REDUCTIONS, default='mean', help='of the channels; default: mean')
    parser.add_argument('--channels', type=int, default=1, help='how many of the strongest channels; default: 1')
    parser.add_argument(
        '--query', type=float, nargs=2, metavar=('ROW', 'COLUMN'), help='pixel from which self-attention looks'
    )
    parser.add_argument('--masks', action='store_true', help='draw the features before and after each mask, too')
    parser.add_argument('--cam', nargs='+', choices=list(CAM_METHODS), default=[], help='class activation maps beside')
    parser.add_argument('--classes', nargs='+', help='names of the classes; default: those in the checkpoint')
    parser.add_argument('--dpi', type=int, default=200, help='dots an inch; default: 200')
    parser.add_argument('--device', help='default: the accelerator if there is one')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of the config: key=value')
    args = parser.parse_args(argv)
    if args.masks and (args.cam or args.query or args.reduction != 'mean'):
        parser.error('--masks takes --layers and --channels, but not --cam, --query or --reduction.')
    if args.channels > 1 and not args.masks and args.reduction != 'strongest':
        parser.error('--channels is for --reduction strongest, or --masks.')
    return args


def print_layers(model):
    table = Table(title='Attention maps')
    for name in ('layer', 'kind'):
        table.add_column(name, overflow='fold')
    for name, tap in attention_maps(model).items():
        table.add_row(name, tap.kind)
    Console().print(table)


def main(argv=None):
    args = parse_args(argv)
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options or {})
    inferencer = AttentionInferencer(config, args.checkpoint, args.device, args.classes)
    if args.list_layers:
        return print_layers(inferencer.model)
    if args.masks:
        result = inferencer.draw_masks(args.image, args.out, layers=args.layers, channels=args.channels, dpi=args.dpi)
    else:
        result = inferencer.draw(
            args.image,
            args.out,
            layers=args.layers,
            reduction=args.reduction,
            channels=args.channels,
            query=args.query,
            cams=args.cam,
            dpi=args.dpi,
        )
    said = {key: result[key] for key in ('pred_class', 'pred_label', 'pred_score') if key in result}
    print(f'{args.image}: {said or "see the prediction of AttentionInferencer"}; {args.out} written')


if __name__ == '__main__':
    main()
