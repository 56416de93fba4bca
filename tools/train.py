"""Train a model.

python tools/train.py configs/resattn/attention56_digits.py
python tools/train.py CONFIG --load-from CHECKPOINT --corrections FOLDER --use gate      # see docs/corrections.md
"""

from mmresattn.apis import USES, add_common_arguments, build_runner, load_config, training_config, use_mixed_precision
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
    parser.add_argument('--load-from', metavar='CHECKPOINT', help='start with the weights of this checkpoint')
    parser.add_argument('--corrections', metavar='FOLDER', help='train on from the corrections in this folder')
    parser.add_argument(
        '--use',
        choices=USES,
        default=next(iter(USES)),
        help=f'what corrections are used for: {"; ".join(f"{name}: {text}" for name, text in USES.items())}',
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    cfg = load_config(args)
    cfg.load_from = args.load_from or cfg.get('load_from')
    if args.corrections:
        if not cfg.load_from:
            raise ValueError('--corrections trains a network on: give its checkpoint with --load-from.')
        cfg = training_config(cfg, cfg.load_from, args.corrections, args.use)
        if not args.work_dir:
            cfg.work_dir = f'{cfg.work_dir}_{args.use}'
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
