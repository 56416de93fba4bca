"""Write the weights of a checkpoint for others: in half precision, as safetensors, without the state of training.

python tools/model_converters/publish_weights.py configs/resattn/attention56_digits.py \\
    work_dirs/attention56_digits/epoch_12.pth attention56_digits.safetensors
"""

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmresattn.apis import build_model
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.weights import publish


def main(argv=None):
    parser = ArgumentParser(description='Write the weights of a checkpoint in half precision as safetensors.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='path or address of the checkpoint')
    parser.add_argument('out', type=Path, help='file to write (.safetensors)')
    parser.add_argument(
        '--input-size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='size of the images on which it was trained; default: of the first test image, if the data set is there',
    )
    args = parser.parse_args(argv)
    if args.out.suffix != '.safetensors':
        parser.error('out must end in .safetensors.')

    cfg = Config.fromfile(args.config)
    model = build_model(cfg, args.checkpoint)
    about_data, size = model._dataset_meta, args.input_size
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        if size is None or not about_data.get('classes'):
            try:
                dataset = DATASETS.build(cfg.test_dataloader.dataset)
                about_data = {**dataset.metainfo, **about_data}
                size = size or dataset[0]['inputs'].shape[-2:]
            except OSError as error:
                print(f'Without the data set, the file does not say class names or input size: {error}')
    digest = publish(model, args.out, Path(args.config).name, about_data, size)
    print(f'{digest}  {args.out.name}')  # a line of SHA256SUMS
    print(f'{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB')


if __name__ == '__main__':
    run_tool(main)
