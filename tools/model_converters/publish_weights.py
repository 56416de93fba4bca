"""Write the weights of a checkpoint for others: in half precision, as safetensors, without the state of training.

python tools/model_converters/publish_weights.py configs/resattn/attention56_digits.py \\
    work_dirs/attention56_digits/epoch_12.pth attention56_digits.safetensors
"""

import argparse
import hashlib
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file

import mmresattn


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Write the weights of a checkpoint in half precision as safetensors.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', type=Path, help='file to write (.safetensors)')
    args = parser.parse_args(argv)
    if args.out.suffix != '.safetensors':
        parser.error('out must end in .safetensors.')
    return args


def half(name: str, weight: torch.Tensor) -> torch.Tensor:
    """A weight in half precision; counters stay integers."""
    rounded = weight.half() if weight.is_floating_point() else weight
    if not rounded.isfinite().all():
        raise ValueError(
            f'{name} has values up to {weight.abs().max():.3g}; half precision holds none above 65504. Publish the '
            'checkpoint itself.'
        )
    return rounded.contiguous()


def main(argv=None):
    args = parse_args(argv)
    cfg = Config.fromfile(args.config)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        model = MODELS.build(cfg.model)
    load_checkpoint(model, args.checkpoint, map_location='cpu', strict=True)
    weights = {name: half(name, weight) for name, weight in model.state_dict().items()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, args.out, dict(config=Path(args.config).name, mmresattn=mmresattn.__version__))
    digest = hashlib.sha256(args.out.read_bytes()).hexdigest()
    print(f'{digest}  {args.out.name}')  # a line of SHA256SUMS
    print(f'{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB')


if __name__ == '__main__':
    main()
