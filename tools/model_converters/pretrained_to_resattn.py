"""Write a Residual Attention Network that begins as a published residual network, and compare the two.

python tools/model_converters/pretrained_to_resattn.py torchvision://resnet50 work_dirs/attention-resnet50.pth
python tools/model_converters/pretrained_to_resattn.py timm::resnetv2_50.a1h_in1k OUT.pth --images photo1.jpg photo2.jpg

SOURCE is a file, an address, torchvision://NAME, mmpretrain::NAME or timm::NAME; see docs/pretrained.md.
"""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from mmresattn.apis import build_model
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.models.backbones.residual_attention_net import ARCHITECTURES
from mmresattn.weights import CheckpointError, PretrainedTrunk, record
from mmresattn.weights.pretrained_trunk import LAYOUTS, Source, holders, plain_network, read_source

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
HALF = dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)


def preprocessing(source: Source) -> dict:
    """How the source takes its images: by its zoo's record or, for a file, as networks of its layout do."""
    zoo, _, name = source.name.rpartition('::')
    if zoo == 'mmpretrain':
        from mmpretrain.apis.model import ModelHub

        cfg = ModelHub.get(name).config.data_preprocessor
    elif zoo == 'timm':
        import timm

        cfg = timm.models.get_pretrained_cfg(name)
        cfg = dict(mean=[255 * x for x in cfg.mean], std=[255 * x for x in cfg.std], to_rgb=True)
    else:
        cfg = HALF if source.layout.startswith('ResNetV2') else IMAGENET
    return {key: cfg[key] for key in ('mean', 'std', 'to_rgb')}


def smallest_arch(source: Source) -> str:
    """The smallest architecture that holds a source; if none does, one of the same units, which then says why."""
    stems = LAYOUTS[source.layout].stems
    alike = [name for name, arch in ARCHITECTURES.items() if arch.unit == source.unit and arch.stem in stems]
    return next(iter([*holders(source), *alike, 'attention-resnet50']))


def images_of(paths: list[str], model: torch.nn.Module) -> torch.Tensor:
    """Photographs as the classifier takes them (N, 3, 224, 224), or four images of random pixels."""
    if not paths:
        return torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    resize = dict(type='ResizeEdge', scale=256, edge='short')
    crop = dict(type='CenterCrop', crop_size=224)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose([dict(type='LoadImageFromFile'), resize, crop, dict(type='PackInputs')])
        data = [pipeline(dict(img_path=path)) for path in paths]
    return model.data_preprocessor(dict(inputs=[sample['inputs'] for sample in data]))['inputs']


def main(argv=None):
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', metavar='SOURCE', help='file, address, torchvision://, mmpretrain:: or timm::')
    parser.add_argument('out', type=Path, metavar='OUT', help='checkpoint to write (.pth)')
    parser.add_argument(
        '--arch',
        choices=list(ARCHITECTURES),
        metavar='ARCH',
        help='name of an architecture (default: the smallest that holds the source)',
    )
    parser.add_argument('--prefix', help='of the names of the network, where the file has several')
    parser.add_argument('--images', nargs='+', default=[], help='photographs to compare on (default: random pixels)')
    parser.add_argument('--mean', type=float, nargs=3, help='of the pixels, R G B (default: those of the source)')
    parser.add_argument('--std', type=float, nargs=3, help='of the pixels, R G B (default: those of the source)')
    parser.add_argument(
        '--classes', type=Path, help='text file of class names, one a line (default: of 1000, ImageNet)'
    )
    args = parser.parse_args(argv)
    try:
        if not args.out.resolve().parent.is_dir():
            raise FileNotFoundError(f'There is no folder {args.out.resolve().parent} to write {args.out.name} to.')
        source = read_source(args.source, args.prefix)
        if not source.classifier:
            raise ValueError(
                f'{source} has no classifier. Start from it with init_cfg=dict(type="PretrainedTrunk", ...).'
            )
        arch = args.arch or smallest_arch(source)
        number, channels = source.classifier['weight'].shape
        classes = args.classes.read_text().splitlines() if args.classes else source.meta.get('dataset_meta', {}).get(
            'classes', IMAGENET_CATEGORIES if number == 1000 else None
        )  # fmt: skip
        if classes and len(classes) != number:
            raise ValueError(f'{len(classes)} names of classes for {number} classes.')
        given = {key: getattr(args, key) for key in ('mean', 'std') if getattr(args, key)}
        network = dict(
            type='ImageClassifier',
            backbone=dict(type='ResidualAttentionNet', arch=arch),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=number, in_channels=channels),
            data_preprocessor=dict(type='ClsDataPreprocessor', **preprocessing(source) | given),
        )
        model = build_model(Config(dict(model=network, default_scope='mmpretrain')))
        x = images_of(args.images, model)
        PretrainedTrunk(args.source, args.prefix)(model)
    except (OSError, ValueError, CheckpointError) as error:
        parser.error(str(error))
    model.eval()

    with torch.no_grad():
        expected = model.neck(plain_network(source)(x))[-1] @ source.classifier['weight'].T.float()
        expected += source.classifier.get('bias', torch.zeros(number))
        scores = model(x, mode='tensor')
    largest = (scores - expected).abs().max() / expected.abs().max()
    same = (scores.argmax(1) == expected.argmax(1)).sum()
    meta = dict(source=args.source, mmresattn=dict(record(model), arch=arch))
    if classes:
        meta['dataset_meta'] = dict(classes=list(classes))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), args.out)
    print(
        f'{len(x)} images{"" if args.images else " of random pixels"}: scores differ by at most {largest:.1e} of the '
        f'largest score, {same} of {len(x)} predictions are the same'
    )
    print(f'{arch}: {sum(p.numel() for p in model.parameters()):,} parameters, {number} classes, written to {args.out}')


if __name__ == '__main__':
    run_tool(main)
