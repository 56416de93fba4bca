"""Tries versions of Python, PyTorch and OpenMMLab, each in an environment of its own, and writes docs/installation.md.

Needs uv (``pip install uv``) and the versions of Python. An environment takes some minutes and, while it is there, some
gigabytes; compiled MMCV is built from its source.

    python .dev_scripts/compatibility.py              # all of them
    python .dev_scripts/compatibility.py torch-2.11   # some of them; the others stay in the table as they were
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'installation.md'
RESULTS = Path(__file__).with_suffix('.json')
TABLE = re.compile(r'(?s)(?<=<!-- table -->\n).*(?=<!-- end -->)')

USUAL = dict(torch='2.14.1', mmengine='0.10.7', **{'mmcv-lite': '2.1.0'}, mmpretrain='1.2.0')
DENSE = dict(mmdet='3.3.0', mmsegmentation='1.2.2', setuptools='81.0.0', ftfy='', regex='')
COMPILED = {name: version for name, version in USUAL.items() if name != 'mmcv-lite'}
# Name: Python and packages, of exact versions or '' for the newest.
ENVIRONMENTS = {
    'python-3.10': ('3.10', USUAL),
    'python-3.11': ('3.11', USUAL | DENSE),
    'python-3.12': ('3.12', USUAL | DENSE),
    'python-3.13': ('3.13', USUAL),
    'torch-2.11': ('3.11', USUAL | dict(torch='2.11.0')),
    'torch-2.15': ('3.12', USUAL | dict(torch='2.15.0')),
    'mmengine-0.11': ('3.11', USUAL | dict(mmengine='0.11.0rc3')),
    'mmcv-lite-2.2': ('3.11', USUAL | {'mmcv-lite': '2.2.0'}),
    'onedl': (
        '3.11',
        {'torch': '2.14.1', 'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6', 'onedl-mmpretrain': '1.3.6'},
    ),
    'export': (
        '3.11',
        USUAL | DENSE | dict(onnx='1.23.2', onnxscript='0.7.2', onnxruntime='1.31.1', openvino='2026.4.1'),
    ),
    'mmcv-compiled': ('3.11', COMPILED | DENSE | dict(torch='2.12.1', mmcv='2.1.0')),
}

TRAIN = 'tools/train.py configs/resattn/attention56_digits.py --cfg-options'
TESTS = ' '.join(
    f'tests/{name}.py'
    for name in (
        'test_registry',
        'test_compat/test_stack',
        'test_weights/test_loader',
        'test_engine/test_replay',
        'test_models/test_layers/test_attention_map',
        'test_models/test_layers/test_attention_module',
    )
)
DENSE_TESTS = 'tests/test_compat/test_mmcv_ops.py tests/test_configs_detection.py tests/test_configs_segmentation.py'
# What is tried, in this order: a command of Python each.
CHECKS = {
    'import': '-c "import mmresattn"',
    'tests': f'-m pytest -q -n 0 {TESTS}',
    'training': f'{TRAIN} train_cfg.max_epochs=1',
    'resumed': f'{TRAIN} train_cfg.max_epochs=2 --resume',
    'detection, segmentation': f'-m pytest -q -n 0 {DENSE_TESTS}',
    'export': '-m pytest -q -n 0 tests/test_tools/test_export_onnx.py',
}

NEEDS = {'detection, segmentation': 'mmdet', 'export': 'onnx'}  # packages without which a check is left out


def run(command: str, folder: Path, log: Path, **variables: str) -> str | None:
    """Run a command; the last line that it printed if it failed."""
    with log.open('a') as output:
        output.write(f'$ {command}\n')
        output.flush()
        environment = {**os.environ, **variables}
        done = subprocess.run(command, shell=True, cwd=folder, env=environment, stdout=output, stderr=output)
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return lines[-1] if done.returncode else None


def packages(versions: dict[str, str]) -> str:
    return ' '.join(f'{name}=={version}' if version else name for name, version in versions.items())


def try_environment(name: str, logs: Path) -> dict[str, str]:
    """Make an environment, and say of each check whether it passed."""
    python, versions = ENVIRONMENTS[name]
    log = logs / f'{name}.log'
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, 'mmresattn')
        subprocess.run(['git', 'clone', '-q', ROOT, clone], check=True)
        install = f'uv pip install --python {folder}/venv --prerelease if-necessary-or-explicit'
        steps = [f'uv venv -q --seed --python {python} {folder}/venv']
        if 'mmcv' in versions:  # its setup.py imports torch and pkg_resources
            steps += [
                f'{install} torch=={versions["torch"]} torchvision setuptools==80.9.0 wheel ninja',
                f'MMCV_WITH_OPS=1 {install} --no-build-isolation mmcv=={versions["mmcv"]}',
            ]
        steps += [f'{install} torchvision {packages(versions)} pytest pytest-timeout pytest-xdist hypothesis -e .']
        for step in steps:
            failed = run(step, clone, log)
            if failed:
                return dict(installed=failed)
        results = {}
        for check, command in CHECKS.items():
            if NEEDS.get(check, 'torch') not in versions:
                continue
            started = time.time()
            failed = run(f'{folder}/venv/bin/python -W ignore {command}', clone, log, OMP_NUM_THREADS='1')
            results[check] = failed or 'yes'
            print(f'{name}: {check}: {results[check]} ({time.time() - started:.0f} s)', flush=True)
        return results


def table(results: dict[str, dict[str, str]]) -> str:
    checks = [check for check in CHECKS if any(check in result for result in results.values())]
    lines = [f'| environment | Python | versions | {" | ".join(checks)} |', '| --- ' * (len(checks) + 3) + '|']
    for name, (python, versions) in ENVIRONMENTS.items():
        if name not in results:  # not tried yet
            continue
        shown = ', '.join(f'{package} {version}' for package, version in versions.items() if version)
        marks = [{'yes': 'yes', '': ''}.get(results[name].get(check, ''), 'no') for check in checks]
        lines.append(f'| {name} | {python} | {shown} | {" | ".join(marks)} |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('environments', nargs='*', help=f'some of {", ".join(ENVIRONMENTS)}')
    parser.add_argument('--logs', type=Path, default=Path('work_dirs', 'compatibility'))
    args = parser.parse_args()
    unknown = set(args.environments) - set(ENVIRONMENTS)
    if unknown:
        parser.error(f'there is no {", ".join(sorted(unknown))}; there are {", ".join(ENVIRONMENTS)}')
    args.logs.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in args.environments or ENVIRONMENTS:
        results[name] = try_environment(name, args.logs.absolute())
        print(f'{name}: {results[name]}', flush=True)
        RESULTS.write_text(json.dumps(results, indent=2) + '\n')
        PAGE.write_text(TABLE.sub(lambda _: table(results) + '\n', PAGE.read_text()))


if __name__ == '__main__':
    main()
