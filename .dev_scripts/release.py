"""Version and address of the repository: checked, and written into the files that state them.

The version is that of mmresattn/version.py, the address is REPOSITORY below. setup.py and the site take both from
here.

python .dev_scripts/release.py               # which files state something else
python .dev_scripts/release.py --write       # put it right
python .dev_scripts/release.py --tag v0.2.0  # may this tag be released?
"""

import argparse
import re
import sys
from pathlib import Path

REPOSITORY = 'https://github.com/OWNER/mmresattn'  # the one place: set OWNER, then run this script with --write
ROOT = Path(__file__).resolve().parents[1]
VERSION = re.search(r"'(.+)'", (ROOT / 'mmresattn' / 'version.py').read_text())[1]
SITE = re.sub(
    r'https://github\.com/([^/]+)/(.+)', lambda found: f'https://{found[1].lower()}.github.io/{found[2]}/', REPOSITORY
)
ADDRESS = r'https://github\.com/[\w.-]+/mmresattn(?=[\s"/)#]|$)'
# What each file states: a pattern and what belongs in its place.
STATED = {
    'CITATION.cff': [
        (r'(?<=\nversion: ).+', VERSION),
        (r'(?<=\nrepository-code: ").+(?=")', REPOSITORY),
        (r'(?<=\nurl: ").+(?=")', SITE),
    ],
    'README.md': [(ADDRESS, REPOSITORY)],
    'SECURITY.md': [(ADDRESS, REPOSITORY)],
    'CODE_OF_CONDUCT.md': [(ADDRESS, REPOSITORY)],
    '.github/ISSUE_TEMPLATE/config.yml': [(ADDRESS, REPOSITORY)],
}
# Relative links and pictures of Markdown and of the HTML in it. Code is passed over.
RELATIVE = re.compile(
    r'(?ms)^```.*?^```|`[^`\n]+`|(?P<before>\]\(|^\[[^\]\n]+\]: |(?:href|src)=")(?!\w+:|//)(?P<to>[^)"\s]+)'
)
PICTURE = ('.png', '.gif', '.jpg', '.svg')


def stated(name: str) -> str:
    """The text of a file with the present version and address."""
    text = (ROOT / name).read_text(encoding='utf-8')
    for pattern, value in STATED[name]:
        text, count = re.subn(pattern, lambda _, value=value: value, text)
        if not count:
            raise ValueError(f'{name} does not state {value} any more; expected {pattern}.')
    return text


def long_description() -> str:
    """README.md for the package index, where relative links lead nowhere: here they lead to the tag of the version."""

    def absolute(found: re.Match) -> str:
        if found['to'] is None:
            return found[0]
        kind = 'raw' if found['to'].lower().endswith(PICTURE) else 'blob'
        place = found['to'] if found['to'].startswith('#') else f'/{kind}/v{VERSION}/{found["to"].removeprefix("./")}'
        return f'{found["before"]}{REPOSITORY}{place}'

    return RELATIVE.sub(absolute, (ROOT / 'README.md').read_text(encoding='utf-8'))


def problems(tag: str) -> list[str]:
    """Why a tag cannot be released."""
    found = [f'{name} states another version or address: run --write' for name in STATED if is_wrong(name)]
    if tag != f'v{VERSION}':
        found.append(f'the tag is {tag}, and mmresattn/version.py says {VERSION}')
    if '/OWNER/' in REPOSITORY:
        found.append('REPOSITORY in .dev_scripts/release.py is still the placeholder')
    if not re.search(rf'(?m)^## {re.escape(VERSION)}\b(?!.*not released)', (ROOT / 'CHANGELOG.md').read_text('utf-8')):
        found.append(f'CHANGELOG.md has no heading "## {VERSION}, DATE"')
    return found


def is_wrong(name: str) -> bool:
    return stated(name) != (ROOT / name).read_text(encoding='utf-8')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--write', action='store_true', help='write version and address into the files')
    parser.add_argument('--tag', help='say why this tag cannot be released')
    args = parser.parse_args()
    wrong = [name for name in STATED if is_wrong(name)]
    for name in wrong:
        print(name, 'is written anew' if args.write else 'states another version or address')
        if args.write:
            (ROOT / name).write_text(stated(name), encoding='utf-8')
    if args.tag:
        sys.exit('\n'.join(problems(args.tag)))
    sys.exit(bool(wrong) and not args.write)


if __name__ == '__main__':
    main()
