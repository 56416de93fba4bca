"""Turn an official trained network into a checkpoint for this package, which gives the same outputs.

python tools/model_converters/import_official.py abn-imagenet model_best.pth.tar abn-resnet50.safetensors

docs/pretrained.md lists the families and where their files are. Files of Caffe and Caffe2 are read as they are.
"""

import argparse
import json
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.datasets.categories import CIFAR100_CATEGORIES, IMAGENET_CATEGORIES
from safetensors.torch import save_file

import mmresattn  # noqa: F401  (registers the networks)
from mmresattn.datasets import CELEBA_ATTRIBUTES
from mmresattn.weights import CheckpointError, read_checkpoint
from mmresattn.weights.addresses import index_folder
from mmresattn.weights.blobs import READERS, read_blobs
from mmresattn.weights.official import FAMILIES, convert
from mmresattn.weights.record import record

CLASSES = {'imagenet': IMAGENET_CATEGORIES, 'cifar100': CIFAR100_CATEGORIES, 'celeba': CELEBA_ATTRIBUTES}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('family', choices=FAMILIES, metavar='FAMILY', help=f'one of {", ".join(FAMILIES)}')
    parser.add_argument(
        'src', help='official file or address: .pth, .pth.tar, .pt, .safetensors, .caffemodel, .npz, .pkl'
    )
    parser.add_argument('out', type=Path, help='checkpoint to write, .safetensors or .pth')
    parser.add_argument('--config', type=Path, help='config of the network (default: those of the family that fit)')
    parser.add_argument('--classes', type=Path, help='text file of class names, one a line (default: known by family)')
    args = parser.parse_args(argv)
    return parser, args


def check_destination(path: Path) -> None:
    """Raise an OSError or ValueError if ``path`` cannot be written, before the work is done."""
    if path.suffix not in ('.safetensors', '.pth'):
        raise ValueError(f'out must end in .safetensors or .pth, not {path.name}.')
    folder = path.resolve().parent
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder; name the checkpoint to write.')
    if not folder.is_dir():
        raise FileNotFoundError(f'There is no folder {folder} to write {path.name} to.')
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise PermissionError(f'{path} is write-protected.')


def main(argv=None):
    parser, args = parse_args(argv)
    family = FAMILIES[args.family]
    try:
        check_destination(args.out)
        classes = args.classes.read_text().splitlines() if args.classes else CLASSES.get(family.classes)
        weights = read_blobs(args.src) if Path(args.src).suffix in READERS else read_checkpoint(args.src)['state_dict']
        names = [next(index_folder().glob(f'configs/*/{name}.py')) for name in family.networks]
        configs = {path.stem: Config.fromfile(path) for path in ([args.config] if args.config else names)}
        models = {}
        for name, cfg in configs.items():
            with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
                models[name] = MODELS.build(cfg.model)  # for names and shapes
        name, state = convert(weights, args.family, models)
        cfg, model = configs[name], models[name]
        if classes is not None and len(classes) != cfg.data_preprocessor.num_classes:
            raise ValueError(f'{len(classes)} names of classes for the {cfg.data_preprocessor.num_classes} of {name}.')
    except (OSError, ValueError, CheckpointError) as error:
        parser.error(str(error))

    preprocessor = {**cfg.data_preprocessor, **family.data_preprocessor}
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model.data_preprocessor = MODELS.build({'type': 'ClsDataPreprocessor', **preprocessor})
    meta = dict(config=f'{name}.py', mmresattn=record(model), source=f'{args.family}: {Path(args.src).name}')
    if classes is not None:
        meta['dataset_meta'] = dict(classes=list(classes))
    if args.out.suffix == '.pth':
        torch.save(dict(state_dict=state, meta=meta), args.out)
    else:
        save_file({key: value.contiguous() for key, value in state.items()}, args.out, dict(mmresattn=json.dumps(meta)))
    parameters = sum(value.numel() for value in model.parameters())
    print(f'{name}: {parameters:,} parameters, {len(classes or ())} names of classes, written to {args.out}')
    options = ' '.join(
        f'data_preprocessor.{key}={str(value).replace(" ", "")}'
        for key, value in family.data_preprocessor.items()
        if value != cfg.data_preprocessor.get(key)
    )
    config = args.config or next(index_folder().glob(f'configs/*/{name}.py')).relative_to(index_folder())
    print(f'To test it: tools/test.py {config} {args.out}' + (f' --cfg-options {options}' if options else ''))


if __name__ == '__main__':
    main()
