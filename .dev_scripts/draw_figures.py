"""Draw the figures of the families: docs/images/<name>.svg.

python .dev_scripts/draw_figures.py            # all of them
python .dev_scripts/draw_figures.py abn senet  # some

A figure is data: boxes at places in inches, from the top left corner, and arrows between them. All text stands on light
boxes and all lines are of a middle grey, so that the figures can be read on white and on black.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyBboxPatch

IMAGES = Path(__file__).resolve().parents[1] / 'docs' / 'images'
WIDTH = 4.8  # inches, of every figure: on a telephone letters are still 7 points high
COLOURS = {  # fill and edge
    'features': ('#eceff1', '#78909c'),
    'layer': ('#cfe3fa', '#3f7cbf'),
    'attention': ('#ffe0b8', '#d97f1e'),
    'map': ('#ff9e6d', '#b33c00'),  # what an AttentionMap sees
    'answer': ('#cdebd2', '#3d8b50'),
    'sum': ('#ffffff', '#607d8b'),
    'circle': ('#ffffff', '#607d8b'),
}
LINE = '#8a8f94'


@dataclass
class Box:
    """A box with text, around its centre."""

    x: float
    y: float
    text: str
    kind: str = 'layer'
    w: float = 1.7
    h: float = 0.4

    def edge(self, dx: float, dy: float) -> tuple[float, float]:
        """The middle of the side towards a direction."""
        return self.x + dx * self.w / 2, self.y + dy * self.h / 2


@dataclass
class Arrow:
    """An arrow from box to box: straight, or at right angles.

    Args:
        start (str): Name of a box.
        end (str): Name of a box.
        via (float, optional): Leave and arrive sideways, and go up or down at this x.
        first (str): Of a corner: ``'across'`` and then down, or ``'down'`` and then across.
        at (float): Where it comes down, from the middle of the box.
    """

    start: str
    end: str
    via: float | None = None
    first: str = 'across'
    at: float = 0.0

    def points(self, boxes: dict[str, Box]) -> list[tuple[float, float]]:
        a, b = boxes[self.start], boxes[self.end]
        across, down = (b.x > a.x) - (b.x < a.x), (b.y > a.y) - (b.y < a.y)
        if self.via is not None:
            out, back = (1 if self.via > a.x else -1), (1 if self.via > b.x else -1)
            return [a.edge(out, 0), (self.via, a.y), (self.via, b.y), b.edge(back, 0)]
        if abs(a.x - b.x) < b.w / 2:
            return [a.edge(0, down), (a.x, b.y - down * b.h / 2)]
        if abs(a.y - b.y) < b.h / 2:
            return [a.edge(across, 0), (b.x - across * b.w / 2, a.y)]
        if self.first == 'across':
            x = b.x + self.at
            return [a.edge(across, 0), (x, a.y), (x, b.y - down * b.h / 2)]
        return [a.edge(0, down), (a.x, b.y), b.edge(-across, 0)]


@dataclass
class Picture:
    """Boxes by name, and the arrows between them."""

    height: float
    boxes: dict[str, Box]
    arrows: list[Arrow] = field(default_factory=list)

    def chain(self, *names: str) -> 'Picture':
        """Arrows from each of these boxes to the next."""
        self.arrows += [Arrow(a, b) for a, b in zip(names, names[1:])]
        return self


def circle(x: float, y: float, text: str) -> Box:
    return Box(x, y, text, 'circle', 0.3, 0.3)


def attention_module() -> Picture:
    """Paper, figure 2, at the three poolings of the first stage."""
    trunk, mask = 0.95, 2.55
    steps = [
        'max pooling, r units\n1/2 of H, W',
        'max pooling, r units\n1/4',
        'max pooling, 2r units\n1/8',
        'resize, add, r units\n1/4',
        'resize, add, r units\n1/2',
        'resize\nH, W',
        'twice: BN, ReLU,\n1x1 convolution',
        'sigmoid',
    ]
    boxes = {
        'x': Box(trunk, 0.3, 'x: C, H, W', 'features', 1.2),
        'before': Box(trunk, 0.95, 'p units', w=1.2),
        'trunk': Box(trunk, 3.6, 't units\ntrunk T: C, H, W', w=1.3, h=0.48),
        **{f'mask{i}': Box(mask, 1.6 + 0.65 * i, text, 'attention', 1.55, 0.48) for i, text in enumerate(steps)},
        'skip1/4': Box(3.72, 2.9, 'unit', 'attention', 0.6),
        'skip1/2': Box(4.42, 2.9, 'unit', 'attention', 0.6),
        'map': Box(mask, 6.8, 'mask M: C, H, W', 'map', 1.55),
        'times': circle(trunk, 6.8, '×'),
        'plus': circle(trunk, 7.4, '+'),
        'after': Box(trunk, 8.0, 'p units', w=1.2),
        'y': Box(trunk, 8.65, 'y: C, H, W', 'features', 1.2),
    }
    picture = Picture(8.95, boxes).chain('x', 'before', 'trunk', 'times', 'plus', 'after', 'y')
    picture.chain('before', *(f'mask{i}' for i in range(len(steps))), 'map', 'times')
    picture.arrows += [
        Arrow('mask1', 'skip1/4'),
        Arrow('skip1/4', 'mask3', first='down'),
        Arrow('mask0', 'skip1/2'),
        Arrow('skip1/2', 'mask4', first='down'),
        Arrow('trunk', 'plus', via=0.13),
    ]
    return picture


def attention56() -> Picture:
    """Table 2 of the paper: what a 224x224 image becomes, and how far down each mask goes."""
    left, right, rows = 1.2, 3.57, 0.56
    stages = [
        ('image', 'image: 3, 224, 224', 'features', ()),
        ('stem', '7x7 convolution: 64, 112, 112', 'layer', ()),
        ('pool', 'max pooling: 64, 56, 56', 'layer', ()),
        ('stage1.unit1', 'unit: 256, 56, 56', 'layer', ()),
        ('stage1.attention1', 'attention: 256, 56, 56', 'attention', (56, 28, 14, 7)),
        ('stage2.unit1', 'unit: 512, 28, 28', 'layer', ()),
        ('stage2.attention1', 'attention: 512, 28, 28', 'attention', (28, 14, 7)),
        ('stage3.unit1', 'unit: 1024, 14, 14', 'layer', ()),
        ('stage3.attention1', 'attention: 1024, 14, 14', 'attention', (14, 7)),
        ('stage4.unit1', 'unit: 2048, 7, 7', 'layer', ()),
        ('stage4.unit2', 'unit: 2048, 7, 7', 'layer', ()),
        ('stage4.unit3', 'unit: 2048, 7, 7', 'layer', ()),
        ('head', 'BN, ReLU, mean, linear: 1000', 'answer', ()),
    ]
    boxes = {}
    for i, (name, text, kind, sides) in enumerate(stages):
        y = 0.3 + rows * i
        boxes[name] = Box(left, y, text, kind, 2.2)
        levels = [*sides, *sides[-2::-1]]  # down and up again
        widths = {56: 0.4, 28: 0.34, 14: 0.28, 7: 0.24}
        x = right - sum(widths[side] for side in levels) / 2
        for k, side in enumerate(levels):
            kind = 'map' if k == len(levels) - 1 else 'attention'
            boxes[f'{name}.{k}'] = Box(x + widths[side] / 2, y, str(side), kind, widths[side] - 0.04, widths[side])
            x += widths[side]
    boxes['key'] = Box(right, 0.3 + rows * 2.5, 'sides of the maps in\nthe mask, down and up', 'sum', 1.8, 0.48)
    return Picture(0.6 + rows * (len(stages) - 1), boxes).chain(*(name for name, *_ in stages))


def senet() -> Picture:
    """A residual block with Squeeze-and-Excitation."""
    main, side = 1.2, 3.6
    boxes = {
        'x': Box(main, 0.3, 'x: C, H, W', 'features'),
        'branch': Box(main, 1.05, 'residual branch', w=1.7),
        'mean': Box(side, 1.05, 'mean over positions\nz: C, 1, 1', 'attention', 1.9, 0.48),
        'squeeze': Box(side, 1.75, '1x1 convolution, ReLU\nC / r, 1, 1', 'attention', 1.9, 0.48),
        'excite': Box(side, 2.45, '1x1 convolution, sigmoid', 'attention', 1.9),
        'map': Box(side, 3.1, 'weights s: C, 1, 1', 'map', 1.9),
        'times': circle(main, 3.1, '×'),
        'plus': circle(main, 3.75, '+'),
        'y': Box(main, 4.4, 'ReLU', w=1.7),
    }
    picture = Picture(4.7, boxes).chain('x', 'branch', 'times', 'plus', 'y')
    picture.chain('branch', 'mean', 'squeeze', 'excite', 'map', 'times')
    picture.arrows.append(Arrow('x', 'plus', via=0.15))
    return picture


def nonlocal_block() -> Picture:
    """The block of embedded Gaussians."""
    x1, x2, x3 = 0.85, 2.4, 3.95
    boxes = {
        'x': Box(x2, 0.3, 'x: C, H, W', 'features', 1.4),
        'theta': Box(x1, 1.75, '1x1 conv.: C / 2\nθ', w=1.3, h=0.48),
        'phi': Box(x2, 1.75, '1x1 conv.: C / 2\nφ', w=1.3, h=0.48),
        'g': Box(x3, 1.75, '1x1 conv.: C / 2\ng', w=1.3, h=0.48),
        'pool': Box(x2, 1.02, '2x2 max pooling\n(if wanted)', 'layer', 1.3, 0.48),
        'logits': Box(1.62, 2.55, 'products θ(x_i) φ(x_j)', 'attention', 1.8),
        'softmax': Box(1.62, 3.15, 'softmax over j', 'attention', 1.8),
        'map': Box(1.62, 3.75, 'weights: 1, Q, K', 'map', 1.8),
        'times': circle(x3, 3.75, '×'),
        'out': Box(x3, 4.45, '1x1 conv.: C, BN\nW_z', w=1.3, h=0.48),
        'plus': circle(x3, 5.15, '+'),
        'z': Box(x3, 5.75, 'z: C, H, W', 'features', 1.4),
    }
    picture = Picture(6.05, boxes).chain('logits', 'softmax', 'map', 'times', 'out', 'plus', 'z')
    picture.chain('x', 'pool', 'phi')
    picture.arrows += [
        Arrow('x', 'theta'),
        Arrow('pool', 'g'),
        Arrow('theta', 'logits', first='down'),
        Arrow('phi', 'logits', first='down'),
        Arrow('g', 'times'),
        Arrow('x', 'plus', via=4.7),
    ]
    return picture


def aaconv() -> Picture:
    """An attention-augmented convolution, one head of which is drawn."""
    main, side, values = 0.95, 2.75, 4.25
    boxes = {
        'x': Box(main, 0.3, 'x: C, H, W', 'features', 1.5),
        'qkv': Box(3.2, 0.3, '1x1 convolution\nq, k and v', w=1.7, h=0.48),
        'conv': Box(main, 2.6, '3x3 convolution\nF - d_v channels', w=1.6, h=0.48),
        'logits': Box(side, 1.15, 'products q k', 'attention', 1.75),
        'relative': Box(side, 1.85, '+ logits of distances\nin x and in y', 'attention', 1.75, 0.48),
        'softmax': Box(side, 2.55, 'softmax over keys', 'attention', 1.75),
        'map': Box(side, 3.2, 'weights: heads, Q, K', 'map', 1.75),
        'v': Box(values, 1.15, 'v', w=0.7),
        'times': circle(values, 3.2, '×'),
        'out': Box(values, 3.9, '1x1 conv.\nd_v', w=0.9, h=0.48),
        'join': Box(main, 4.6, 'joined', 'sum', 1.5),
        'y': Box(main, 5.25, 'y: F, H, W', 'features', 1.5),
    }
    picture = Picture(5.55, boxes).chain('x', 'conv', 'join', 'y')
    picture.chain('x', 'qkv').chain('logits', 'relative', 'softmax', 'map', 'times', 'out')
    picture.chain('v', 'times')
    picture.arrows += [
        Arrow('qkv', 'logits', first='down'),
        Arrow('qkv', 'v'),
        Arrow('out', 'join', first='down'),
    ]
    return picture


def pay_attention() -> Picture:
    """VGG-att2."""
    body, level1, level2 = 0.8, 2.45, 4.0
    boxes = {
        'image': Box(body, 0.3, 'image: 3, 32, 32', 'features', 1.4),
        'layers1': Box(body, 1.0, 'layers 1 to 10\nl: 512, 16, 16', w=1.4, h=0.48),
        'layers2': Box(body, 1.8, 'layers 11 to 13\nl: 512, 8, 8', w=1.4, h=0.48),
        'g': Box(body, 2.6, 'layers 14, 15, linear\ng: 512', w=1.5, h=0.48),
    }
    for k, (x, side) in enumerate(((level1, 16), (level2, 8)), 1):
        boxes |= {
            f'score{k}': Box(x, 3.35, 'scores of l and g', 'attention', 1.4),
            f'softmax{k}': Box(x, 3.95, 'softmax over\npositions', 'attention', 1.4, 0.48),
            f'map{k}': Box(x, 4.65, f'map a: 1, {side}, {side}', 'map', 1.4),
            f'sum{k}': Box(x, 5.3, 'sum of a l: 512', w=1.4),
        }
    boxes['join'] = Box(3.22, 6.0, 'joined: 1024', 'sum', 2.2)
    boxes['answer'] = Box(3.22, 6.6, 'linear: classes', 'answer', 1.4)
    picture = Picture(6.9, boxes).chain('image', 'layers1', 'layers2', 'g')
    for k in (1, 2):
        picture.chain(f'score{k}', f'softmax{k}', f'map{k}', f'sum{k}')
        picture.arrows += [Arrow(f'layers{k}', f'score{k}', at=0.3), Arrow('g', f'score{k}', at=-0.3)]
        picture.chain(f'sum{k}', 'join')
    return picture.chain('join', 'answer')


def abn() -> Picture:
    """The Attention Branch Network."""
    main, branch = 1.1, 3.55
    boxes = {
        'image': Box(main, 0.3, 'image', 'features', 1.4),
        'extractor': Box(main, 0.95, 'stages before the last', w=1.9),
        'g': Box(main, 1.6, 'g: C, H, W', 'features', 1.4),
        'stage': Box(branch, 1.6, 'last stage at stride 1,\nBN', 'attention', 1.9, 0.48),
        'classes': Box(branch, 2.35, '1x1 conv., BN, ReLU\na map of each class', 'attention', 1.9, 0.48),
        'scores': Box(branch, 3.1, '1x1 convolution,\nmean over positions', 'attention', 1.5, 0.48),
        'mask': Box(branch, 4.55, '3x3 convolution to 1,\nBN, sigmoid', 'attention', 1.9, 0.48),
        'answer1': Box(branch, 3.75, 'scores of the branch', 'answer', 1.5),
        'map': Box(branch, 5.25, 'map M: 1, H, W', 'map', 1.9),
        'times': circle(main, 5.25, '×'),
        'plus': circle(main, 5.85, '+'),
        'perception': Box(main, 6.45, 'last stage, mean, linear', w=1.9),
        'answer2': Box(main, 7.1, 'scores: the answer', 'answer', 1.9),
        'loss': Box(branch, 7.1, 'loss: of both scores', 'sum', 1.9),
    }
    picture = Picture(7.4, boxes).chain('image', 'extractor', 'g', 'times', 'plus', 'perception', 'answer2', 'loss')
    picture.chain('g', 'stage', 'classes', 'scores', 'answer1').chain('mask', 'map', 'times')
    picture.arrows += [
        Arrow('classes', 'mask', via=2.42),
        Arrow('answer1', 'loss', via=4.68),
        Arrow('g', 'plus', via=0.15),
    ]
    return picture


def abn_bayesian() -> Picture:
    """Its Bayesian form."""
    main, branch = 1.25, 3.6
    boxes = {
        'extractor': Box(main, 0.3, 'stages before the last: once', w=2.1),
        'g': Box(main, 0.95, 'g: C, H, W', 'features', 1.4),
        'stage': Box(branch, 0.95, 'attention branch,\nwith dropout', 'attention', 1.7, 0.48),
        'map': Box(branch, 1.75, 'map M of this pass', 'map', 1.7),
        'times': Box(main, 1.75, '(1 + M) g', 'sum', 1.4),
        'perception': Box(main, 2.5, 'perception branch,\nwith dropout', w=1.7, h=0.48),
        'mean1': Box(branch, 3.3, 'mean of softmax\nover 50 passes', 'answer', 1.7, 0.48),
        'mean2': Box(main, 3.3, 'mean of softmax\nover 50 passes', 'answer', 1.7, 0.48),
        'entropy1': Box(branch, 4.05, 'entropy', 'sum', 1.7),
        'entropy2': Box(main, 4.05, 'entropy', 'sum', 1.7),
        'answer': Box(2.42, 4.8, 'the mean of less entropy answers', 'answer', 2.5),
    }
    picture = Picture(5.1, boxes).chain('extractor', 'g', 'times', 'perception', 'mean2', 'entropy2')
    picture.chain('g', 'stage', 'map', 'times').chain('mean1', 'entropy1')
    picture.arrows += [
        Arrow('stage', 'mean1', via=4.68),
        Arrow('entropy1', 'answer', first='down'),
        Arrow('entropy2', 'answer', first='down'),
    ]
    return picture


def abn_multi_task() -> Picture:
    """Its form for many tasks."""
    main, branch = 1.2, 3.6
    boxes = {
        'extractor': Box(main, 0.3, 'stages before the last', w=1.9),
        'g': Box(main, 0.95, 'g: C, H, W', 'features', 1.4),
        'stage': Box(branch, 0.95, 'last stage at stride 1', 'attention', 1.9),
        'maps': Box(branch, 1.65, '1x1 convolution\nA: T, H, W', 'attention', 1.9, 0.48),
        'map': Box(branch, 3.1, 'map of task t: 1, H, W', 'map', 1.7),
        'pool': Box(branch, 2.35, 'maximum: T scores\nof the branch', 'answer', 1.7, 0.48),
        'times': circle(main, 3.1, '×'),
        'perception': Box(main, 3.75, 'last stage, mean\none for all tasks', w=1.9, h=0.48),
        'linear': Box(main, 4.5, 'linear layer of task t', w=1.9),
        'answer': Box(main, 5.15, 'yes or no to task t', 'answer', 1.9),
    }
    picture = Picture(5.45, boxes).chain('extractor', 'g', 'times', 'perception', 'linear', 'answer')
    picture.chain('g', 'stage', 'maps', 'pool').chain('map', 'times')
    picture.arrows.append(Arrow('maps', 'map', via=4.68))
    return picture


PICTURES = {
    'attention_module': attention_module,
    'attention56': attention56,
    'senet': senet,
    'nonlocal': nonlocal_block,
    'aaconv': aaconv,
    'pay_attention': pay_attention,
    'abn': abn,
    'abn_bayesian': abn_bayesian,
    'abn_multi_task': abn_multi_task,
}


def draw(picture: Picture) -> Figure:
    """The figure of a picture, in inches."""
    figure = Figure(figsize=(WIDTH, picture.height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(picture.height, 0))
    axes.axis('off')
    for arrow in picture.arrows:
        points = arrow.points(picture.boxes)
        axes.plot(*zip(*points[:-1]), color=LINE, lw=1.6, solid_joinstyle='round')
        style = dict(arrowstyle='-|>', color=LINE, lw=1.6, shrinkA=0, shrinkB=0, mutation_scale=11)
        axes.annotate('', points[-1], points[-2], arrowprops=style)
    for box in picture.boxes.values():
        fill, edge = COLOURS[box.kind]
        paint = dict(fc=fill, ec=edge, lw=1.3, zorder=3)
        if box.kind == 'circle':
            axes.add_patch(Ellipse((box.x, box.y), box.w, box.h, **paint))
        else:
            corner = (box.x - box.w / 2, box.y - box.h / 2)
            axes.add_patch(FancyBboxPatch(corner, box.w, box.h, 'round,pad=0,rounding_size=0.06', **paint))
        axes.text(box.x, box.y, box.text, ha='center', va='center', size=9.5, color='#16191c', zorder=4)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', help=f'of {", ".join(PICTURES)}; default: all')
    parser.add_argument('--out', type=Path, default=IMAGES, help='folder; default: docs/images')
    parser.add_argument('--format', default='svg', choices=['svg', 'png'], help='default: svg')
    args = parser.parse_args()
    matplotlib.rcParams.update({'svg.fonttype': 'path', 'svg.hashsalt': 'mmresattn'})  # the same file every time
    for name in args.names or PICTURES:
        file = args.out / f'{name}.{args.format}'
        unsaid = dict.fromkeys(('Creator', 'Date', 'Format', 'Type')) if args.format == 'svg' else None
        draw(PICTURES[name]()).savefig(file, transparent=True, dpi=110, metadata=unsaid)
        print(file)


if __name__ == '__main__':
    main()
