"""Draw class activation maps (Grad-CAM and others) of a trained model on images of its test set.

python tools/visualization/vis_cam.py configs/resattn/attention56_digits.py \\
    work_dirs/attention56_digits/epoch_12.pth cam.png --method gradcam layercam
"""

import argparse

import torch
from mmengine.config import DictAction
from mmengine.dataset import default_collate
from rich.console import Console
from rich.table import Table

from mmresattn.apis import load_classifier
from mmresattn.visualization import (
    CAM_METHODS,
    attention_figure,
    cam_layers,
    class_activation_maps,
    default_layer,
)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Draw class activation maps on images of the test set.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', nargs='?', help='picture to write (.png, .svg, .pdf)')
    parser.add_argument('--indices', type=int, nargs='+', default=[0, 1, 2, 3], help='which images of the test set')
    parser.add_argument('--layer', nargs='+', default=[None], help='modules; default: the last with positions')
    parser.add_argument('--list-layers', action='store_true', help='print the names for --layer and stop')
    parser.add_argument('--method', nargs='+', choices=list(CAM_METHODS), default=['gradcam'], help='default: gradcam')
    parser.add_argument(
        '--target', default='predicted', help="class to look for: predicted (default), true, or a class's name"
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of the config: key=value')
    args = parser.parse_args(argv)
    if args.out is None and not args.list_layers:
        parser.error('name the picture to write, or give --list-layers.')
    return args


def print_layers(layers):
    table = Table(title='Layers in the order in which they finish')
    for name in ('layer', 'channels, height, width', ''):
        table.add_column(name, overflow='fold')
    for name, shape in layers.items():
        table.add_row(name, ', '.join(map(str, shape)), 'default' if name == default_layer(layers) else '')
    Console().print(table)


def main(argv=None):
    args = parse_args(argv)
    model, loader = load_classifier(args.config, args.checkpoint, args.cfg_options)
    dataset = loader.dataset
    batch = default_collate([dataset[index] for index in args.indices])
    layers = cam_layers(model, batch['inputs'])
    if args.list_layers:
        return print_layers(layers)
    with torch.no_grad():
        results = model.test_step(batch)
    names = list(dataset.CLASSES)
    true = [result.gt_label.item() for result in results]
    predicted = [result.pred_label.item() for result in results]
    if args.target not in ('predicted', 'true', *names):
        raise ValueError(f'--target is predicted, true, or one of the classes {names}, not {args.target!r}.')
    labels = {'predicted': predicted, 'true': true}.get(args.target)
    if labels is None:
        labels = [names.index(args.target)] * len(results)
    maps = {
        f'{method}.{layer or default_layer(layers)}': class_activation_maps(
            model, batch['inputs'], labels, method, layer
        )[:, None]
        for layer in args.layer
        for method in args.method
    }
    images = [image.permute(1, 2, 0).flip(-1).numpy() for image in batch['inputs']]  # BGR -> RGB
    titles = [f'{names[t]} as {names[p]}' for t, p in zip(true, predicted)]
    if args.target not in ('predicted', 'true'):
        titles = [f'{title},\nmaps of {args.target}' for title in titles]
    attention_figure(images, maps, titles).savefig(args.out, dpi=150)
    print(f'{len(images)} images, maps of {", ".join(maps)}, class: {args.target}, written to {args.out}')


if __name__ == '__main__':
    main()
