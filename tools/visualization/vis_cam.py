"""Draw class activation maps (Grad-CAM and others) of a trained model on images of its test set.

python tools/visualization/vis_cam.py configs/resattn/attention56_digits.py \\
    work_dirs/attention56_digits/epoch_12.pth cam.png --method gradcam layercam
"""

import torch
from mmengine.config import DictAction

from mmresattn.apis import existing_indices, load_classifier
from mmresattn.apis.command_line import ArgumentParser, print_table, run_tool
from mmresattn.visualization import (
    CAM_METHODS,
    attention_figure,
    cam_layers,
    check_suffix,
    class_activation_maps,
    class_names,
    data_set_sample,
    default_layer,
    prediction_title,
    record_samples,
    save_figure,
    show_image,
)


def parse_args(argv=None):
    parser = ArgumentParser(description='Draw class activation maps on images of the test set.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', nargs='?', help='picture to write (.png, .svg, .pdf)')
    parser.add_argument('--indices', type=int, nargs='+', help='which images of the test set; default: 0 1 2 3')
    parser.add_argument('--layer', nargs='+', default=[None], help='modules; default: the last with positions')
    parser.add_argument('--list-layers', action='store_true', help='print the names for --layer and stop')
    parser.add_argument('--method', nargs='+', choices=list(CAM_METHODS), default=['gradcam'], help='default: gradcam')
    parser.add_argument(
        '--target',
        default='predicted',
        help="class to look for: predicted, true, or a class's name; default: %(default)s",
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of the config: key=value')
    args = parser.parse_args(argv)
    if args.out is None and not args.list_layers:
        parser.error('name the picture to write, or give --list-layers.')
    return args


def print_layers(layers):
    default = default_layer(layers)
    rows = [(name, ', '.join(map(str, shape)), 'default' if name == default else '') for name, shape in layers.items()]
    print_table('Layers in the order in which they finish', ('layer', 'channels, height, width', ''), rows)


def target_label(target, prediction, classes):
    """The class whose map is drawn; of several labels the one with the highest score."""
    scores = prediction.pred_score.cpu()
    names = [str(name) for name in classes or range(len(scores))]
    if target == 'predicted':
        return int(scores.argmax())
    if target == 'true':
        labels = prediction.get('gt_label', torch.tensor([])).cpu().reshape(-1).long()
        if not len(labels):
            raise ValueError('--target true: an image has no label. Choose predicted, or the name of a class.')
        return int(labels[scores[labels].argmax()])
    if target not in names:
        raise ValueError(f'--target is predicted, true, or one of the classes {names}, not {target!r}.')
    return names.index(target)


def main(argv=None):
    args = parse_args(argv)
    model, loader = load_classifier(args.config, args.checkpoint, args.cfg_options)
    dataset = loader.dataset
    indices = existing_indices(dataset, args.indices)
    device = model.data_preprocessor.device
    layers = cam_layers(model, data_set_sample(dataset, indices[0]).packed['inputs'][None].to(device))
    if args.list_layers:
        return print_layers(layers)
    check_suffix(args.out)
    classes = class_names(dataset)
    images, maps, titles = [], {}, []
    for index in indices:  # one by one, as sizes may differ
        sample = data_set_sample(dataset, index)
        record_samples(model, [sample], [])
        label = target_label(args.target, sample.prediction, classes)
        images.append(show_image(sample.image))
        titles.append(prediction_title(sample.prediction, classes))
        if args.target not in ('predicted', 'true'):
            titles[-1] += f',\nmaps of {args.target}'
        inputs = sample.packed['inputs'][None].to(device)
        for layer in args.layer:
            for method in args.method:
                name = f'{method}.{layer or default_layer(layers)}'
                maps.setdefault(name, []).append(class_activation_maps(model, inputs, [label], method, layer))
    save_figure(attention_figure(images, maps, titles), args.out, 150)
    print(f'{len(images)} images, maps of {", ".join(maps)}, class: {args.target}, written to {args.out}')


if __name__ == '__main__':
    run_tool(main)
