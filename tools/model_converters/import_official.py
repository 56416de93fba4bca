"""Turn an official trained network into weights for this package, which give the same outputs.

python tools/model_converters/import_official.py abn-imagenet model_best.pth.tar abn-resnet50.safetensors

docs/pretrained.md lists the families and where their files are. Files of Caffe and Caffe2 are read as they are.
"""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.datasets.categories import CIFAR100_CATEGORIES, IMAGENET_CATEGORIES

from mmresattn.apis import build_model
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.datasets import CELEBA_ATTRIBUTES
from mmresattn.weights import CheckpointError, read_checkpoint
from mmresattn.weights.addresses import index_folder
from mmresattn.weights.blobs import READERS, read_blobs
from mmresattn.weights.official import FAMILIES, convert
from mmresattn.weights.publishing import metadata, write_weights

CLASSES = {'imagenet': IMAGENET_CATEGORIES, 'cifar100': CIFAR100_CATEGORIES, 'celeba': CELEBA_ATTRIBUTES}


def config_of(network: str) -> Path:
    """The config of a network by its name."""
    return next(index_folder().glob(f'configs/*/{network}.py')).relative_to(index_folder())


def main(argv=None):
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('family', choices=FAMILIES, metavar='family', help=f'one of {", ".join(FAMILIES)}')
    parser.add_argument('src', help='official file, or its address; .caffemodel, .npz and .pkl are read, too')
    parser.add_argument('out', type=Path, help='file to write (.safetensors)')
    parser.add_argument('--config', type=Path, help='config of the network (default: that of the family which fits)')
    parser.add_argument('--classes', type=Path, help='text file of class names, one a line (default: by the family)')
    args = parser.parse_args(argv)
    if args.out.suffix != '.safetensors' or args.out.is_dir():
        parser.error(f'out must be a file that ends in .safetensors, not {args.out}.')
    family = FAMILIES[args.family]
    try:
        classes = args.classes.read_text().splitlines() if args.classes else CLASSES.get(family.classes, ())
        weights = read_blobs(args.src) if Path(args.src).suffix in READERS else read_checkpoint(args.src)['state_dict']
        paths = [args.config] if args.config else [config_of(network) for network in family.networks]
        configs = {path.stem: Config.fromfile(index_folder() / path) for path in paths}
        models = {}
        for name, cfg in configs.items():
            with torch.device('meta'):  # for names and shapes
                models[name] = build_model(cfg)
        name, state = convert(weights, args.family, models)
        cfg, model = configs[name], models[name]
        if classes and len(classes) != cfg.data_preprocessor.num_classes:
            raise ValueError(
                f'There are {len(classes)} names of classes for the {cfg.data_preprocessor.num_classes} classes of '
                f'{name}. Give a file with all of them, one a line: --classes FILE.'
            )
        pixels = {'type': 'ClsDataPreprocessor', **cfg.data_preprocessor, **family.data_preprocessor}
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model.data_preprocessor = MODELS.build(pixels)
        size = cfg.get('image_size')
        meta = metadata(model, f'{name}.py', dict(classes=classes), size and (size, size))
        write_weights(state, meta, args.out)
    except (OSError, ValueError, CheckpointError) as error:
        parser.error(str(error))

    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f'{name}: {parameters:,} parameters, {len(classes)} names of classes, written to {args.out}')
    options = ' '.join(
        f'data_preprocessor.{key}={str(value).replace(" ", "")}'
        for key, value in family.data_preprocessor.items()
        if value != cfg.data_preprocessor.get(key)
    )
    path = next(path for path in paths if path.stem == name)
    print(f'To test it: tools/test.py {path} {args.out}' + (f' --cfg-options {options}' if options else ''))


if __name__ == '__main__':
    run_tool(main)
