"""Draw the photographs, digits and maps of README and docs again, by the commands that stand above them.

python .dev_scripts/draw_pictures.py                # all of them; trains the digits, about two minutes
python .dev_scripts/draw_pictures.py see_flower     # some

A picture is drawn by the last block of commands (```bash) above it on its page. The commands run in a folder of their own,
beside links to configs, tools, weights and data, and pages in turn, so that a command can use what one before it has made.
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
PAGES = ['docs/see.md']
BLOCK = re.compile(r'```bash\n(?P<commands>.*?)```|!\[[^\]]*\]\((?:docs/)?images/(?P<picture>\w+)\.png\)', re.S)


def commands_above() -> dict[str, str]:
    """The commands that draw each picture of the pages, in the order of the pages."""
    found = {}
    for page in PAGES:
        commands = ''
        for match in BLOCK.finditer((ROOT / page).read_text()):
            commands = match['commands'] or commands
            if match['picture'] and f'{match["picture"]}.png' in commands:
                found[match['picture']] = commands
    return found


def draw(names: list[str], out: Path) -> None:
    """Run the commands of some pictures and copy what they drew.

    Args:
        names (list[str]): Names of pictures, without suffix.
        out (Path): Folder for the pictures.

    Raises:
        subprocess.CalledProcessError: A command failed.
    """
    commands = commands_above()
    done = set()
    with tempfile.TemporaryDirectory() as folder:
        for name in ('configs', 'tools', 'weights', 'model-index.yml'):
            (Path(folder) / name).symlink_to(ROOT / name)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
        env = dict(os.environ, PATH=path, PYTHONPATH=str(ROOT))
        for name in names:
            if commands[name] not in done:  # pictures may share a block
                subprocess.run(['bash', '-euc', commands[name]], cwd=folder, env=env, check=True)
                done.add(commands[name])
            shutil.copy(Path(folder) / f'{name}.png', out / f'{name}.png')
            print(out / f'{name}.png')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', help=f'of {", ".join(commands_above())}; default: all')
    parser.add_argument('--out', type=Path, default=IMAGES, help='folder; default: docs/images')
    args = parser.parse_args()
    draw(args.names or list(commands_above()), args.out)


if __name__ == '__main__':
    main()
