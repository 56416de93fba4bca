"""Fetch the canvas library of the editor's page, Konva, into mmresattn/editor/static/vendor.

    python .dev_scripts/vendor_konva.py 10.9.1

Konva (https://konvajs.org, MIT) has layers, hit detection, and pointer events for mouse, pen and touch, and its shapes
are plain data: what the page needs, at two thirds of the size of Fabric.js, whose strength is editing objects on the
canvas. The archive comes from npm's registry by `npm pack`. Its one minified file and its licence are kept, with the
version and the SHA-256 in konva.json; tests/test_editor/test_page.py compares them.
"""

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[1] / 'mmresattn/editor/static/vendor'


def main(version: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = ['npm', 'pack', '--json', f'konva@{version}']
        packed = json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout)[0]
        with tarfile.open(Path(folder, packed['filename'])) as archive:
            read = {name: archive.extractfile(f'package/{name}').read() for name in ('konva.min.js', 'LICENSE')}
    VENDOR.mkdir(exist_ok=True)
    (VENDOR / 'konva.min.js').write_bytes(read['konva.min.js'])
    (VENDOR / 'konva.LICENSE').write_bytes(read['LICENSE'])
    record = dict(
        package='konva',
        version=packed['version'],
        licence='MIT',
        npm_integrity=packed['integrity'],
        sha256=hashlib.sha256(read['konva.min.js']).hexdigest(),
    )
    (VENDOR / 'konva.json').write_text(json.dumps(record, indent=2) + '\n')
    print(record)


if __name__ == '__main__':
    main(sys.argv[1])
