"""Compare the attention systems of this package: size, cost, speed and maps, in one table.

python .dev_scripts/compare_attention.py                                       # one body under every kind of attention
python .dev_scripts/compare_attention.py --nets imagenet --batch-size 4 --out comparison.md
python .dev_scripts/compare_attention.py my_config.py configs/resattn/attention56_digits.py --shape 16

Speeds are medians over rounds in which every network takes its turn, so that whatever else the machine does falls on
all of them. Images are random numbers, and networks are not trained: no data is needed.
"""

import statistics
from collections import Counter
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.progress import track

from mmresattn.apis import build_model
from mmresattn.apis.command_line import ArgumentParser, markdown_table, print_table, run_tool
from mmresattn.models.layers import attention_maps, record_attention
from mmresattn.utils import count_multiply_adds, time_in_turns

CONFIGS = Path(__file__).parent.parent / 'configs'
NETS = dict(  # side of the image, and the configs
    compare=(
        32,
        [
            'compare/wrn16-2_cifar10',  # no attention
            'compare/attention56-short_cifar10',
            'compare/se-wrn16-2_cifar10',
            'compare/nonlocal-wrn16-2_cifar10',
            'compare/aa-wrn16-2_cifar10',
            'compare/pay-wrn16-2_cifar10',
            'compare/abn-wrn16-2_cifar10',
        ],
    ),
    cifar=(
        32,
        [
            'resattn/ablations/resnet164_cifar100',  # no attention
            'resattn/attention56_cifar100',
            'resattn/attention92_cifar100',
            'pay_attention/vgg_cifar100',  # no attention
            'pay_attention/vgg-pan_cifar100',
            'pay_attention/vgg-att2-pc_cifar100',
            'pay_attention/vgg-att2-dp_cifar100',
            'pay_attention/resnet164-att2-pc_cifar100',
            'abn/abn-resnet20_cifar100',
            'abn/abn-resnet110_cifar100',
            'abn/abn-attention56_cifar100',
        ],
    ),
    imagenet=(
        224,
        [
            'resattn/attention56_imagenet',
            'resattn/attention92_imagenet',
            'resattn/attentionnext56_imagenet',
            'senet/se-resnet50_imagenet',
            'senet/se-bn-inception_imagenet',
            'nonlocal/nonlocal-resnet50-1block_imagenet',
            'nonlocal/nonlocal-resnet50-5block_imagenet',
            'aaconv/aa-resnet50_imagenet',
            'abn/abn-resnet50_imagenet',
        ],
    ),
)
COLUMNS = (
    'network',
    'parameters',
    'multiply-adds',
    'test, images/s',
    'training, images/s',
    'maps: CxHxW, or heads x queries x keys',
)


def parse_args(argv=None):
    parser = ArgumentParser(description='Compare attention systems: size, cost, speed and maps.')
    parser.add_argument('configs', nargs='*', help='config files to compare instead of those of --nets')
    parser.add_argument('--nets', choices=list(NETS), default='compare', help='which networks of this package')
    parser.add_argument('--shape', type=int, help='side of the images; default: 32 or 224 by --nets')
    parser.add_argument('--batch-size', type=int, default=8, help='images at once')
    parser.add_argument('--rounds', type=int, default=5, help='rounds, in which one comes after the other')
    parser.add_argument('--iterations', type=int, default=2, help='of each network in a round')
    parser.add_argument('--out', type=Path, help='file to write the table to, in Markdown')
    args = parser.parse_args(argv)
    if min(args.batch_size, args.rounds, args.iterations) < 1:
        parser.error('--batch-size, --rounds and --iterations are at least 1.')
    side, names = NETS[args.nets]
    args.shape = args.shape or side
    args.configs = args.configs or [str(CONFIGS / f'{name}.py') for name in names]
    return args


class Net:
    """A network and its counts."""

    def __init__(self, config, images):
        self.model = build_model(Config.fromfile(config)).to(images.device)
        self.images = images
        self.samples = [DataSample().set_gt_label(0).to(images.device) for _ in images]
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.parameters = sum(weight.numel() for weight in self.model.parameters())
        self.model.eval()
        self.multiply_adds = count_multiply_adds(self.model, images[:1])
        with torch.no_grad(), record_attention(self.model, list(attention_maps(self.model))) as maps:
            self.model(images[:1])
        kinds = {name: tap.kind for name, tap in attention_maps(self.model).items()}
        shapes = Counter((kinds[name], 'x'.join(map(str, attention.shape[1:]))) for name, attention in maps.items())
        self.maps = {kind: [(n, shape) for (k, shape), n in shapes.items() if k == kind] for kind, _ in shapes}

    def test(self):
        self.model.eval()
        with torch.no_grad():
            self.model(self.images)

    def train(self):
        """A step of SGD."""
        self.model.train()
        losses = self.model(self.images, self.samples, mode='loss')
        loss, _ = self.model.parse_losses(losses)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def row(self, name, times):
        speeds = [len(self.images) / statistics.median(seconds) for seconds in times]
        maps = [
            f'{kind} ' + ', '.join(f'{n} of {shape}' if n > 1 else shape for n, shape in shapes)
            for kind, shapes in self.maps.items()
        ]
        numbers = (f'{self.parameters:,}', f'{self.multiply_adds / 1e9:.2f} G', *(f'{speed:,.1f}' for speed in speeds))
        return (name, *numbers, '; '.join(maps) or 'none')


def main(argv=None):
    args = parse_args(argv)
    console = Console()
    torch.manual_seed(0)
    images = torch.randn(args.batch_size, 3, args.shape, args.shape, device=get_device())
    nets = [Net(config, images) for config in track(args.configs, 'networks are built', console=console)]
    phases = [(net.test, net.train) for net in nets]
    with console.status('rounds'):
        times = time_in_turns({phase: phase for pair in phases for phase in pair}, args.rounds, args.iterations)
    rows = [
        net.row(Path(config).stem, [times[phase] for phase in pair])
        for net, config, pair in zip(nets, args.configs, phases)
    ]

    device = torch.cuda.get_device_name() if images.is_cuda else f'{images.device}, {torch.get_num_threads()} threads'
    title = (
        f'{args.shape}x{args.shape}, {args.batch_size} images a batch, medians of {args.rounds} x {args.iterations}, '
        f'{device}, PyTorch {torch.__version__}'
    )
    texts = (0, len(COLUMNS) - 1)
    print_table(title, COLUMNS, rows, texts)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(f'{title}:\n\n{markdown_table(COLUMNS, rows, texts)}')
        console.print(f'written to {args.out}')


if __name__ == '__main__':
    run_tool(main)
