"""Do another package's own tests fail more often with this package imported, or with its cures switched on?

python .dev_scripts/others_tests.py FOLDER/tests

runs them three times and says which fail in one way only; those that draw random numbers may. MMEngine's tests are in
the source archive of onedl-mmengine 0.10.12, MMPretrain's in that of mmpretrain 1.0.0rc5, both on PyPI.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

WAYS = {
    'plain': '',
    'imported': 'import mmresattn',
    'enabled': 'import mmresattn.compat; mmresattn.compat.enable()',
}


def failures(tests: Path, before: str, timeout: int) -> tuple[int, set[str]]:
    """How many tests ran, and which of them failed, in a process that runs some code before it collects them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'before_collection.py').write_text(before)
        options = ['-p', 'before_collection', '-p', 'no:cacheprovider', '--override-ini=addopts=', '-q', '--tb=no']
        path = os.pathsep.join([folder, os.environ.get('PYTHONPATH', '')])
        subprocess.run(
            [
                sys.executable,
                '-m',
                'pytest',
                *options,
                f'--timeout={timeout}',
                '--junitxml',
                f'{folder}/out.xml',
                tests.name,
            ],
            cwd=tests.parent,
            env={**os.environ, 'PYTHONPATH': path},
        )
        cases = [*ElementTree.parse(Path(folder, 'out.xml')).iter('testcase')]
    failed = [case for case in cases if case.find('failure') is not None or case.find('error') is not None]
    return len(cases), {f'{case.get("classname")}.{case.get("name")}' for case in failed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('tests', type=Path, help='folder of tests')
    parser.add_argument('--timeout', type=int, default=120, help='seconds for each test')
    args = parser.parse_args()
    found = {way: failures(args.tests.resolve(), before, args.timeout) for way, before in WAYS.items()}
    for way, (number, failed) in found.items():
        print(f'{way}: {len(failed)} of {number} fail')
        for name in sorted(failed - found['plain'][1]):
            print(f'  not in plain: {name}')


if __name__ == '__main__':
    main()
