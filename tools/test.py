"""Test a checkpoint.

python tools/test.py configs/resattn/attention56_digits.py work_dirs/attention56_digits/epoch_12.pth
"""

import mmengine
from mmengine.config import ConfigDict
from mmengine.registry import METRICS
from mmengine.utils import apply_to

from mmresattn.apis import add_common_arguments, build_runner, load_config
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.datasets import innermost_data_sets
from mmresattn.engine import PredictionPicturesHook


def parse_args(argv=None):
    parser = ArgumentParser(description='Test a checkpoint.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='file for the predictions or metrics (.pkl, .json, .yaml)')
    parser.add_argument(
        '--out-item', choices=['metrics', 'pred'], help='what goes into --out; default: pred (a .pkl file)'
    )
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument('--interval', type=int, default=1, help='show every so many samples')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds for which a window stays')
    parser.add_argument(
        '--tta', action='store_true', help="average over the config's test-time augmentation; a classifier's: mirror"
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision; on CPUs in bfloat16')
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    if args.tta and (args.show or args.show_dir):
        parser.error('--tta has no single image to show: leave out --show and --show-dir.')
    if args.out_item and not args.out:
        parser.error('--out-item needs --out.')
    if args.out and args.out_item != 'metrics' and not args.out.endswith(('.pkl', '.pickle')):
        parser.error('--out for predictions must end in .pkl.')
    return args


def add_tta(cfg):
    """Test-time augmentation of the config, or MMPretrain's average over the image and its mirror."""
    if cfg.get('default_scope') != 'mmpretrain' and not ('tta_pipeline' in cfg and 'tta_model' in cfg):
        raise ValueError('--tta: this config has no tta_pipeline and tta_model, and only classification has a default.')
    flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    for dataset in innermost_data_sets(cfg.test_dataloader.dataset):
        *steps, pack = dataset.pipeline
        mirror = dict(type='TestTimeAug', transforms=[flips, [pack]])
        dataset.pipeline = cfg.get('tta_pipeline') or [*steps, mirror]
    cfg.model = ConfigDict(**cfg.get('tta_model', dict(type='mmpretrain.AverageClsScoreTTA')), module=cfg.model)


def plain(metrics):
    """Numbers and lists in place of tensors and arrays, such as the matrix of ConfusionMatrix."""
    return apply_to(metrics, lambda value: hasattr(value, 'tolist'), lambda value: value.tolist())


def main(argv=None):
    args = parse_args(argv)
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.tta:
        add_tta(cfg)
    runner = build_runner(cfg, ['test_dataloader'])
    if args.show or args.show_dir:
        runner.register_hook(PredictionPicturesHook(args.show_dir, args.show, args.interval, args.wait_time))
    if args.out and args.out_item != 'metrics':
        # MMDetection's knows of masks, which it packs.
        kind = 'mmdet.DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'DumpResults'
        runner.test_evaluator.metrics.append(METRICS.build(dict(type=kind, out_file_path=args.out)))
    metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        mmengine.dump(plain(metrics), args.out)


if __name__ == '__main__':
    run_tool(main)
