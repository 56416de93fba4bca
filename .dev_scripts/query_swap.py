"""Draw how the attention of Learn To Pay Attention moves when an image is asked with the global vector of another one.

python .dev_scripts/query_swap.py configs/pay_attention/vgg-att2-dp_cifar10.py CHECKPOINT swap.png \\
    --pairs 0 1 2 3

In dot-product attention (Jetley et al., arXiv:1804.02391) the global vector g of an image is the query, and the local
features l are what it is put to. Each image of a pair is drawn with the attention of its own g and of its partner's.
"""

from contextlib import contextmanager

import torch
from mmengine.config import DictAction
from mmengine.dataset import default_collate

from mmresattn.apis import load_classifier
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.models.layers import record_attention
from mmresattn.models.necks import PayAttention
from mmresattn.visualization import attention_figure, save_figure, show_image


def parse_args(argv=None):
    parser = ArgumentParser(description='Draw attention under the global vector of another image.')
    parser.add_argument('config', help='config file of a network with the neck PayAttention')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', help='picture to write (.png, .svg, .pdf)')
    parser.add_argument(
        '--pairs', type=int, nargs='+', default=[0, 1, 2, 3], help='images of the test set, two after two'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of the config: key=value')
    args = parser.parse_args(argv)
    if len(args.pairs) % 2:
        parser.error('--pairs takes images two after two: A B [A2 B2 ...].')
    return args


def find_neck(model):
    """The attention whose global vector is exchanged."""
    necks = [module for module in model.modules() if isinstance(module, PayAttention)]
    if len(necks) != 1:
        raise ValueError(
            f'query_swap needs a network with one neck of type PayAttention (docs/pay_attention.md); this one has '
            f'{len(necks)}.'
        )
    return necks[0]


@contextmanager
def swapped_global_vectors(neck, order):
    """In this context image i of a batch is asked with the global vector of image ``order[i]``."""
    handle = neck.to_global.register_forward_hook(lambda module, args, g: g[order])  # g: N, C
    try:
        yield
    finally:
        handle.remove()


def main(argv=None):
    args = parse_args(argv)
    model, loader = load_classifier(args.config, args.checkpoint, args.cfg_options)
    neck, dataset = find_neck(model), loader.dataset
    batch = default_collate([dataset[index] for index in args.pairs])
    partners = [i ^ 1 for i in range(len(args.pairs))]  # 1, 0, 3, 2 ...
    prefix = next(name for name, module in model.named_modules() if module is neck)
    names = [f'{prefix}.level{k + 1}.map' for k in range(len(neck.levels))]
    with torch.no_grad():
        with record_attention(model, names) as own:
            as_own = [result.pred_label.item() for result in model.test_step(batch)]
        with record_attention(model, names) as other, swapped_global_vectors(neck, partners):
            results = model.test_step(batch)
    classes = dataset.CLASSES
    titles = [
        f'pair {i // 2 + 1}: {classes[result.gt_label.item()]}\n'
        f'as {classes[before]}, then {classes[result.pred_label.item()]}'
        for i, (before, result) in enumerate(zip(as_own, results))
    ]
    maps = {}
    for k, name in enumerate(names, 1):
        positions = own[name][0].numel()
        maps[f'level{k}.own g'] = own[name].cpu() * positions  # 1 is the attention of every position alike
        maps[f'level{k}.g of partner'] = other[name].cpu() * positions
        moved = (own[name] - other[name]).abs().sum((1, 2, 3)) / 2  # of each image, in [0, 1]
        line = f'level {k}: {moved.mean():.2%} of the attention moves, {moved.max():.2%} at most.'
        if neck.get_submodule(f'level{k}').score is not None:
            line += (
                " Its score is 'pc', <u, l + g>: g adds the same number at every position, which the softmax takes out,"
                " so that g has no influence on the map. Networks with score='dp' show one."
            )
        print(line)
    images = [show_image(image.permute(1, 2, 0).cpu().numpy()) for image in batch['inputs']]
    save_figure(attention_figure(images, maps, titles), args.out, 150)
    print(f'{len(images) // 2} pairs written to {args.out}')


if __name__ == '__main__':
    run_tool(main)
