"""Train a model.

python tools/train.py configs/resattn/attention56_digits.py
"""

from mmresattn.apis import add_common_arguments, build_runner, load_config, use_mixed_precision
from mmresattn.apis.command_line import ArgumentParser, run_tool


def parse_args(argv=None):
    parser = ArgumentParser(description='Train a model.')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='continue from this checkpoint, or without a value from the latest one in the work dir',
    )
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help="scale the learning rate to the batch size by the config's base"
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision; on CPUs in bfloat16')
    add_common_arguments(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    cfg = load_config(args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        use_mixed_precision(cfg)
    if args.resume:
        if cfg.get('strategy', {}).get('type') == 'DeepSpeedStrategy':
            raise ValueError(
                "--resume does not know DeepSpeed's checkpoints, which are folders. Name one: "
                '--cfg-options resume=True load_from=FOLDER'
            )
        cfg.resume, cfg.load_from = True, None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        cfg.auto_scale_lr.enable = True
    build_runner(cfg, ['train_dataloader', 'val_dataloader']).train()


if __name__ == '__main__':
    run_tool(main)
