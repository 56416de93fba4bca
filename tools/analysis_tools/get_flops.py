"""Print parameters and multiply-adds of a config's model.

python tools/analysis_tools/get_flops.py configs/resattn/attention56_imagenet.py
"""

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, DefaultScope

from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.utils import count_multiply_adds, input_channels


def parse_args(argv=None):
    parser = ArgumentParser(description="Print parameters and multiply-adds of a config's model.")
    parser.add_argument('config', help='config file')
    parser.add_argument('--shape', type=int, nargs='+', help="side, or height and width; default: the config's image")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of the config: key=value')
    args = parser.parse_args(argv)
    if args.shape and len(args.shape) > 2:
        parser.error('--shape takes one side, or height and width.')
    return args


def main(argv=None):
    args = parse_args(argv)
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    shape = args.shape or [cfg.get('image_size', 224)]
    height, width = shape[0], shape[-1]
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        model = MODELS.build(cfg.model).eval()
    image = torch.zeros(1, input_channels(model), height, width)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    multiply_adds = count_multiply_adds(model, image)
    print(f'{args.config}, one image of {height}x{width}')
    print(f'{"Parameters":<56}{parameters:>18,}')
    print(f'{"Multiply-adds of convolutions and products, as in papers":<56}{multiply_adds:>18,}')


if __name__ == '__main__':
    run_tool(main)
