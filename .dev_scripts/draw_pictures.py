"""Draw the photographs, digits and maps of README and docs again, by the commands that stand above them.

python .dev_scripts/draw_pictures.py                # all of them; trains the digits, about two minutes
python .dev_scripts/draw_pictures.py see_flower     # some

A picture is drawn by the block of commands (```bash) of a page that writes it. The commands run in a folder apart,
beside links to configs, tools and weights, in the order of the pages: a command can use what one before it has made.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / 'docs' / 'images'
PAGES = ['docs/attention.md']


def commands() -> dict[str, str]:
    """The commands that draw each picture of the pages, in the order of the pages."""
    found = {}
    for page in PAGES:
        for block in re.findall(r'```bash\n(.*?)```', (ROOT / page).read_text(), re.S):
            names = re.findall(r'(\w+)\.png', block)
            found.update({name: block for name in names if (IMAGES / f'{name}.png').exists()})
    return found


def draw(names: list[str], out: Path) -> None:
    """Run the commands of some pictures and copy what they drew.

    Args:
        names (list[str]): Names of pictures, without suffix.
        out (Path): Folder for the pictures.

    Raises:
        subprocess.CalledProcessError: A command failed.
    """
    blocks, done = commands(), set()
    with tempfile.TemporaryDirectory() as folder:
        for name in ('configs', 'tools', 'weights', 'model-index.yml'):
            (Path(folder) / name).symlink_to(ROOT / name)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
        env = dict(os.environ, PATH=path, PYTHONPATH=str(ROOT))
        for name in names:
            if blocks[name] not in done:  # several pictures may share one
                subprocess.run(['bash', '-euc', blocks[name]], cwd=folder, env=env, check=True)
                done.add(blocks[name])
            shutil.copy(Path(folder) / f'{name}.png', out / f'{name}.png')
            print(out / f'{name}.png')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', help=f'of {", ".join(commands())}; default: all')
    parser.add_argument('--out', type=Path, default=IMAGES, help='folder; default: docs/images')
    args = parser.parse_args()
    draw(args.names or list(commands()), args.out)


if __name__ == '__main__':
    main()
