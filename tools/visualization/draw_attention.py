"""Draw the attention maps of a trained model on images of its test set.

python tools/visualization/draw_attention.py configs/resattn/attention56_digits.py \\
    work_dirs/attention56_digits/epoch_12.pth attention.png
"""

import argparse

import torch
from mmengine.config import DictAction
from mmengine.dataset import default_collate

from mmresattn.apis import load_classifier
from mmresattn.models.layers import record_attention
from mmresattn.visualization import attention_figure, reduce_channels


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Draw attention maps on images of the test set.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', help='picture to write (.png, .svg, .pdf)')
    parser.add_argument('--indices', type=int, nargs='+', default=[0, 1, 2, 3], help='which images of the test set')
    parser.add_argument('--reduction', choices=['mean', 'strongest'], default='strongest', help='of the channels')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of the config: key=value')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    model, loader = load_classifier(args.config, args.checkpoint, args.cfg_options)
    dataset = loader.dataset
    batch = default_collate([dataset[index] for index in args.indices])
    with torch.no_grad(), record_attention(model) as maps:
        results = model.test_step(batch)
    images = [image.permute(1, 2, 0).flip(-1).numpy() for image in batch['inputs']]  # BGR -> RGB
    titles = [f'{dataset.CLASSES[r.gt_label.item()]} as {dataset.CLASSES[r.pred_label.item()]}' for r in results]
    reduced = {name: reduce_channels(attention, args.reduction) for name, attention in maps.items()}
    attention_figure(images, reduced, titles).savefig(args.out, dpi=150)
    print(f'{len(images)} images, {len(maps)} maps each, written to {args.out}')


if __name__ == '__main__':
    main()
