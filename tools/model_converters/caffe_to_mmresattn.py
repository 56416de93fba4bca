"""Turn the blobs of an official Caffe model into a checkpoint for MMPretrain's ImageClassifier.

python tools/model_converters/caffe_to_mmresattn.py attention56.npz attention56.pth --arch attention56

The ``.npz`` holds the blobs as ``<layer name>.<k>``, for example ``AttentionA_1/trunk/res1/branch1/conv1_1x1.0``. Where
Caffe is installed, three lines write it::

    net = caffe.Net('Attention-56-deploy.prototxt', 'Attention-56.caffemodel', caffe.TEST)
    blobs = {f'{name}.{k}': blob.data for name, layer in net.params.items() for k, blob in enumerate(layer)}
    numpy.savez('attention56.npz', **blobs)

The prototxt files were published in two versions, whose masks end in a TanH or, as in the paper, in a Sigmoid. The
backbone follows the latter; names and shapes of the blobs are the same.
"""

import argparse
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmresattn.models.backbones.residual_attention_net import ResidualAttentionNet, resolve_arch

ARCHITECTURES = ('attention56', 'attention92', 'attentionnext56', 'attentionnext92')
NUM_CLASSES = 1000
EPS = 1e-5  # of the BN layers, in the official Caffe fork and in PyTorch
# What the blobs 0, 1, ... of a layer are for our module. The last one of BN still has to be turned into a variance.
BLOBS = {
    'Convolution': ('weight',),
    'BN': ('weight', 'bias', 'running_mean', 'running_var'),
    'InnerProduct': ('weight', 'bias'),
}


def layer_table(arch: str) -> dict[str, tuple[str, str]]:
    """The layers with parameters, by their names in the official prototxt.

    Args:
        arch (str): One of ``ARCHITECTURES``.

    Returns:
        dict[str, tuple[str, str]]: For each layer its Caffe type, a key of ``BLOBS``, and the name of our module in an
        ``ImageClassifier`` with a ``LinearClsHead``.

    Raises:
        ValueError: If there is no official network of that name.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f'There are official networks for {list(ARCHITECTURES)}, not for {arch!r}.')
    row = resolve_arch(arch)
    preact = row['unit'] == 'preact'
    down, up = ('down_sample', 'up_sample') if preact else ('down', 'up')
    table = {}

    def conv(layer: str, module: str) -> None:
        table[layer] = ('Convolution', f'backbone.{module}')

    def norm(blob: str, module: str) -> None:  # a BN is named after the blob that it normalises
        table[f'{blob}/bn'] = ('BN', f'backbone.{module}')

    # A unit and a module have the name of the blob that they make, and return it.
    def unit(layer: str, module: str, bottom: str, projection: bool = False) -> str:
        if preact:
            norm(bottom, f'{module}.norm1.0')
        for k, name in enumerate(('conv1_1x1', 'conv2_3x3', 'conv3_1x1'), 1):
            conv(f'{layer}/branch1/{name}', f'{module}.conv{k}')
            if not preact:
                norm(f'{layer}/branch1/{name}', f'{module}.bn{k}')
            elif k < 3:
                norm(f'{layer}/branch1/{name}', f'{module}.norm{k + 1}.0')
        if projection:
            conv(f'{layer}/branch2/conv1_1x1', f'{module}.shortcut' if preact else f'{module}.downsample.0')
            if not preact:
                norm(f'{layer}/branch2/conv1_1x1', f'{module}.downsample.1')
        return layer

    def attention(layer: str, module: str, bottom: str, poolings: int) -> str:
        x = unit(f'{layer}/trunk/res1', f'{module}.before.0', bottom)
        for k in range(row['t']):
            x = unit(f'{layer}/trunk/res{k + 2}', f'{module}.trunk.{k}', x)
        mask = f'{layer}/mask'
        for k in range(1, poolings):
            unit(f'{mask}/{down}/res{k}_1', f'{module}.mask.down.{k - 1}.0', f'{mask}/{down}/pool{k}_3x3_s2')
            unit(f'{mask}/skip/res{k}', f'{module}.mask.skip.{k - 1}', f'{mask}/{down}/res{k}_1')
            unit(f'{mask}/{up}/res{k}_1', f'{module}.mask.up.{k - 1}.0', f'{mask}/{up}{k}')
        x = f'{mask}/{down}/pool{poolings}_3x3_s2'
        for k in range(2 * row['r']):
            x = unit(f'{mask}/{down}/res{poolings}_{k + 1}', f'{module}.mask.bottom.{k}', x)
        if preact:
            norm(f'{mask}/{up}/interp_1', f'{module}.mask.linear.0.0')
        k = 1 if preact else 0  # AttentionNeXt has no BN and ReLU there
        conv(f'{mask}/linear_1', f'{module}.mask.linear.{k}')
        norm(f'{mask}/linear_1', f'{module}.mask.linear.{k + 1}.0')
        conv(f'{mask}/linear_2', f'{module}.mask.linear.{k + 2}')
        return unit(layer, f'{module}.after.0', f'{layer}/fusion')

    conv('conv1', 'stem.0')
    norm('conv1', 'stem.1.0')
    x = 'pool1_3x3_s2'
    for i, modules in enumerate(row['modules']):
        x = unit(f'pre_res_{i + 1}' if modules else f'post_res_{i + 1}_1', f'stage{i + 1}.unit1', x, projection=True)
        for k in range(modules):
            x = attention(f'Attention{"ABC"[i]}_{k + 1}', f'stage{i + 1}.attention{k + 1}', x, row['poolings'][i])
        for k in range(row['units_after'][i]):
            x = unit(f'post_res_{i + 1}_{k + 2}', f'stage{i + 1}.unit{k + 2}', x)
    if preact:
        norm(x, f'norm{len(row["modules"])}.0')
    table['classifier'] = ('InnerProduct', 'head.fc')
    return table


def convert(blobs: Mapping[str, np.ndarray], arch: str) -> dict[str, Tensor]:
    """State dict of an ``ImageClassifier`` from the blobs of an official model.

    Dimensions of size 1 do not matter: (1, C, 1, 1) is as good as (C,) for a BN.

    Args:
        blobs (Mapping[str, np.ndarray]): Blobs of type float32 or float64 by ``<layer name>.<k>``.
        arch (str): One of ``ARCHITECTURES``.

    Returns:
        dict[str, Tensor]: Every entry of the model, of the type of its blob.

    Raises:
        ValueError: If there is no official network of that name, or if blobs are missing, left over or do not fit; the
            message names them.
    """
    table = layer_table(arch)
    with torch.device('meta'):  # for the shapes, without memory or initialisation
        backbone = ResidualAttentionNet(arch)
    shapes = {f'backbone.{name}': tuple(value.shape) for name, value in backbone.state_dict().items()}
    features = backbone.arch['channels'][-1]
    shapes.update({'head.fc.weight': (NUM_CLASSES, features), 'head.fc.bias': (NUM_CLASSES,)})

    names = {  # blob -> entry of the state dict
        f'{layer}.{k}': f'{module}.{parameter}'
        for layer, (kind, module) in table.items()
        for k, parameter in enumerate(BLOBS[kind])
    }
    missing = [name for name in names if name not in blobs]
    extra = [name for name in blobs if name not in names]
    unfit = []
    state = {}
    for name, key in names.items():
        if name not in blobs:
            continue
        blob = np.asarray(blobs[name])
        if [n for n in blob.shape if n != 1] != [n for n in shapes[key] if n != 1]:
            unfit.append(f'{name} of shape {blob.shape}, not {shapes[key]}')
        elif blob.dtype not in (np.float32, np.float64):
            unfit.append(f'{name} of type {blob.dtype}, not float32 or float64')
        elif key.endswith('running_var') and not (np.isfinite(blob) & (blob > 0)).all():
            unfit.append(f'{name}, inverse standard deviations that are not all positive')
        else:
            if key.endswith('running_var'):
                # The official layer adds eps to the variance of a batch, takes the power -1/2 and averages that; at
                # test time it multiplies by the average. So eps is inside of the blob, and the variance from which
                # PyTorch's 1 / sqrt(var + eps) gives the blob again is blob^-2 - eps.
                blob = (blob.astype(np.float64) ** -2 - EPS).astype(blob.dtype)
            state[key] = torch.tensor(blob).reshape(shapes[key])
    problems = [
        f'{len(found)} {kind}: {_listed(found)}'
        for kind, found in (('missing', missing), ('unknown', extra), ('unfit', unfit))
        if found
    ]
    if problems:
        raise ValueError(f'These are not the blobs of the official {arch}.\n' + '\n'.join(problems))
    # Caffe does not count batches, and PyTorch only does for a momentum of None.
    state.update({key: torch.tensor(0) for key in shapes if key.endswith('num_batches_tracked')})
    return {key: state[key] for key in shapes}


def _listed(names: list[str], most: int = 8) -> str:
    rest = len(names) - most
    return ', '.join(names[:most]) + (f' ... and {rest} more' if rest > 0 else '')


def load_blobs(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file; nothing in it is unpickled.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is no ``.npz`` file, or a broken one.
    """
    with open(path, 'rb') as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f'{path} is no .npz file, or a truncated one.')
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
            raise ValueError(f'{path} is no readable .npz file: {error}') from error


def check_destination(path: Path) -> None:
    """Raise an OSError if ``path`` cannot be written, before the work is done."""
    folder = path.resolve().parent
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder; name the checkpoint to write.')
    if not folder.is_dir():
        raise FileNotFoundError(f'There is no folder {folder} to write {path.name} to.')
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise PermissionError(f'{path} is write-protected.')


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('src', type=Path, help='.npz file of the blobs, by <layer name>.<k>')
    parser.add_argument('dst', type=Path, help='checkpoint to write')
    parser.add_argument('--arch', required=True, choices=ARCHITECTURES, help='which network it is')
    args = parser.parse_args(argv)
    try:
        check_destination(args.dst)
        blobs = load_blobs(args.src)
        state = convert(blobs, args.arch)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    torch.save({'state_dict': state, 'meta': {'arch': args.arch}}, args.dst)
    parameters = sum(value.numel() for key, value in state.items() if key.endswith(('weight', 'bias')))
    print(f'{args.arch}: {len(blobs)} blobs, {parameters:,} parameters, written to {args.dst}')


if __name__ == '__main__':
    main()
