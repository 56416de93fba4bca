"""Draw the attention maps of a trained model over an image, or over images of its test set, as PNG, SVG or PDF.

python tools/visualization/vis_attention.py photo.png configs/resattn/attention56_cifar10_fast.py \\
    weights/attention56_cifar10_fast.safetensors --out attention.pdf --channels 2

python tools/visualization/vis_attention.py IMAGE ... --masks            # features before, mask, features after
python tools/visualization/vis_attention.py IMAGE ... --cam gradcam      # beside class activation maps
python tools/visualization/vis_attention.py IMAGE ... --query 120 200    # self-attention from row 120, column 200
python tools/visualization/vis_attention.py CONFIG CHECKPOINT --indices 3 50    # images of the test set, a row each
"""

from mmengine.config import DictAction

from mmresattn.apis import AttentionInferencer, existing_indices, load_data_set, read_config
from mmresattn.apis.command_line import ArgumentParser, print_table, run_tool
from mmresattn.models.layers import attention_maps
from mmresattn.visualization import (
    CAM_METHODS,
    REDUCTIONS,
    attention_figure,
    check_suffix,
    class_names,
    data_set_sample,
    place_maps,
    prediction_title,
    save_figure,
    show_image,
)


def parse_args(argv=None):
    parser = ArgumentParser(description='Draw attention maps over an image, or over images of the test set.')
    parser.add_argument('image', nargs='?', help='path or address of an image; without it, images of the test set')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', default='attention.png', help='.png, .svg or .pdf to write; default: %(default)s')
    parser.add_argument('--indices', type=int, nargs='+', help='which images of the test set; default: 0 1 2 3')
    parser.add_argument('--layers', nargs='+', help='attention maps; default: all with positions')
    parser.add_argument('--list-layers', action='store_true', help='print the names for --layers and stop')
    parser.add_argument(
        '--reduction',
        choices=REDUCTIONS,
        default=REDUCTIONS[0],
        help='of the channels or heads: the one that varies most over positions, or mean or max; default: %(default)s',
    )
    parser.add_argument('--channels', type=int, default=1, help='how many of the strongest; default: %(default)s')
    parser.add_argument(
        '--query',
        type=float,
        nargs=2,
        metavar=('ROW', 'COLUMN'),
        help='pixel from which self-attention looks; default: the mean over all',
    )
    parser.add_argument('--masks', action='store_true', help='draw the features before and after each mask, too')
    parser.add_argument(
        '--cam', nargs='+', choices=list(CAM_METHODS), default=[], help='class activation maps beside; default: none'
    )
    parser.add_argument('--classes', nargs='+', help='names of the classes; default: those in the checkpoint')
    parser.add_argument('--dpi', type=int, default=200, help='dots per inch; default: %(default)s')
    parser.add_argument('--device', help='default: the accelerator if there is one')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of the config: key=value')
    args = parser.parse_args(argv)
    if args.masks and (args.cam or args.query or args.reduction != REDUCTIONS[0]):
        parser.error('--masks takes --layers and --channels, but not --cam, --query or --reduction.')
    if args.channels > 1 and not args.masks and args.reduction != 'strongest':
        parser.error('--channels is for --reduction strongest, or --masks.')
    if args.image is not None and args.indices:
        parser.error('--indices is for images of the test set: leave out the image.')
    if args.image is None and (args.masks or args.cam or args.channels > 1):
        parser.error('--masks, --cam and --channels are for a single image. vis_cam.py draws test images.')
    return args


def draw_test_images(inferencer, config, args):
    """A row for each image: what the network gets, and its maps over it."""
    dataset = load_data_set(config)
    classes = inferencer.classes or class_names(dataset)
    images, maps, titles = [], {}, []
    for index in existing_indices(dataset, args.indices):
        (sample,) = inferencer.predict([data_set_sample(dataset, index)], layers=args.layers)
        images.append(show_image(sample.image))
        titles.append(prediction_title(sample.prediction, classes) or sample.name)
        for name, attention in place_maps(inferencer.model, sample, args.reduction, args.query).items():
            maps.setdefault(name, []).append(attention)
    if not maps:
        raise SystemExit('These maps have one number per channel and no positions that could be drawn.')
    save_figure(attention_figure(images, maps, titles), args.out, args.dpi)
    print(f'{len(images)} images, {len(maps)} maps each, written to {args.out}')


def main(argv=None):
    args = parse_args(argv)
    check_suffix(args.out)
    config = read_config(args.config, args.cfg_options, needs_data=False)
    inferencer = AttentionInferencer(config, args.checkpoint, args.device, args.classes)
    if args.list_layers:
        rows = [(name, tap.kind) for name, tap in attention_maps(inferencer.model).items()]
        return print_table('Attention maps', ('layer', 'kind'), rows)
    if args.image is None:
        return draw_test_images(inferencer, config, args)
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
    shown = {key: result[key] for key in ('pred_class', 'pred_label', 'pred_score') if key in result}
    print(f'{args.image}: {shown or "see the prediction of AttentionInferencer"}; {args.out} written')


if __name__ == '__main__':
    run_tool(main)
