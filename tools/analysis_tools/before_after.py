"""Compare two networks on the held-out images: accuracy, answers that changed, and maps before and after.

    python tools/analysis_tools/before_after.py CONFIG CHECKPOINT CONFIG_AFTER CHECKPOINT_AFTER --out FOLDER

Writes FOLDER/before_after.json and pictures of images whose answer changed.
"""

from mmresattn.apis.before_after import compare
from mmresattn.apis.command_line import ArgumentParser, run_tool


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of the network before; its test images are used')
    parser.add_argument('checkpoint')
    parser.add_argument('config_after')
    parser.add_argument('checkpoint_after')
    parser.add_argument('--out', required=True, help='folder for the results')
    parser.add_argument('--examples', type=int, default=6, help='images to draw of each change')
    args = parser.parse_args(argv)
    before, after = (args.config, args.checkpoint), (args.config_after, args.checkpoint_after)
    result = compare(before, after, args.out, args.examples)
    print(f'{result["images"]} held-out images: {100 * result["accuracy"][0]:.2f} % before, ', end='')
    print(f'{100 * result["accuracy"][1]:.2f} % after; {len(result["to_right"])} answers turned right, ', end='')
    print(f'{len(result["to_wrong"])} turned wrong.')


if __name__ == '__main__':
    run_tool(main)
