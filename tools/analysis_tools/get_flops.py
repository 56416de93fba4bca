"""Print parameters and multiply-adds of a config's model.

    python tools/analysis_tools/get_flops.py configs/resattn/attention56_imagenet.py

Of a detector, backbone and neck are counted; of a segmenter, what runs in a test, at the size of the training crop.
"""

import math

import torch
from mmengine.config import Config, DictAction
from torch import nn

from mmresattn.apis import build_model, read_config
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.utils import count_multiply_adds, forward_images, input_channels, is_detector


def image_size(cfg: Config) -> list[int]:
    """Height and width of the images of a config.

    Of a segmenter the training crop; of a detector what its test pipeline resizes to, padded as for the network; of a
    classifier ``image_size``.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    if preprocessor.get('size'):
        return list(preprocessor['size'])
    if cfg.get('default_scope') == 'mmdet':
        resizes = [step for step in cfg.test_dataloader.dataset.pipeline if step['type'].endswith('Resize')]
        if resizes and resizes[-1].get('scale'):
            divisor = preprocessor.get('pad_size_divisor', 1)
            return [math.ceil(side / divisor) * divisor for side in reversed(resizes[-1]['scale'])]
    return [cfg.get('image_size', 224)]


def left_out(model: nn.Module) -> str:
    """The parts that are not counted, and why."""
    extra = {'backbone', 'neck', 'data_preprocessor'} if is_detector(model) else set()
    parts = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in model.named_children()
        if (name not in extra if extra else name == 'auxiliary_head')
    }
    why = 'their work depends on what they find' if extra else 'it runs in training alone'
    named = ', '.join(f'{name} ({parameters:,} parameters)' for name, parameters in parts.items() if parameters)
    return f'Not counted, as {why}: {named}' if named else ''


def main(argv=None):
    parser = ArgumentParser(description="Print parameters and multiply-adds of a config's model.")
    parser.add_argument('config', help='config file')
    parser.add_argument('--shape', type=int, nargs='+', help="side, or height and width; default: the config's image")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change settings of the config: key=value')
    args = parser.parse_args(argv)
    if args.shape and len(args.shape) > 2:
        parser.error('--shape takes one side, or height and width.')

    cfg = read_config(args.config, args.cfg_options, needs_data=False)
    shape = args.shape or image_size(cfg)
    height, width = shape[0], shape[-1]
    model = build_model(cfg).eval().to('meta')  # shapes alone
    image = torch.zeros(1, input_channels(model), height, width, device='meta')
    parameters = sum(parameter.numel() for parameter in model.parameters())
    multiply_adds = count_multiply_adds(lambda: forward_images(model, image))
    print(f'{args.config}, one image of {height}x{width}')
    print(f'{"Parameters":<56}{parameters:>18,}')
    print(f'{"Multiply-adds of convolutions and products, as in papers":<56}{multiply_adds:>18,}')
    if note := left_out(model):
        print(note)


if __name__ == '__main__':
    run_tool(main)
