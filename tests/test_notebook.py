import re
import sys

import pytest

from tests.conftest import ROOT, environment

nbclient = pytest.importorskip('nbclient', reason='No nbclient: pip install nbclient ipykernel.')
nbformat = pytest.importorskip('nbformat')
NOTEBOOK = ROOT / 'docs/notebook.ipynb'


def printed(notebook):
    """What the cells print; rich, which draws a bar for MMPretrain, prints by ``display_data``."""
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    return ''.join(output.get('text') or output.get('data', {}).get('text/plain', '') for output in outputs)


def test_the_notebook_runs_and_prints_what_it_shows(monkeypatch, tmp_path):
    pytest.importorskip('timm')
    for key, value in environment(TMPDIR=str(tmp_path), MPLBACKEND='agg').items():
        monkeypatch.setenv(key, value)
    assert NOTEBOOK.stat().st_size < 300_000
    notebook, kept = nbformat.read(NOTEBOOK, as_version=4), nbformat.read(NOTEBOOK, as_version=4)
    kernel = ['-m', 'ipykernel_launcher', '-f', '{connection_file}']
    client = nbclient.NotebookClient(notebook, timeout=120, resources=dict(metadata=dict(path=str(ROOT / 'docs'))))
    manager = client.create_kernel_manager()
    manager.kernel_spec.argv = [sys.executable, *kernel]  # this Python, whatever kernel is installed
    client.execute()
    for pattern in (r"skirt \d+% \(1, 10, 10\)", r"\d+ of 12 photographs are wrong", r"'class': '[\w-]+'",
                    r"'map': 'maps/neck.map/dress/dress_0009.png'", r"\(10, 10\) 0\.0 1\.0"):  # fmt: skip
        assert re.findall(pattern, printed(notebook)) == re.findall(pattern, printed(kept)) != []
    assert any('image/png' in output.get('data', {}) for cell in kept.cells for output in cell.get('outputs', []))
