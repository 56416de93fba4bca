import sys

import pytest

from tests.conftest import ROOT, environment

nbclient = pytest.importorskip('nbclient', reason='No nbclient: pip install nbclient ipykernel.')
nbformat = pytest.importorskip('nbformat')
NOTEBOOK = ROOT / 'docs/tutorial.ipynb'


def test_the_notebook_runs_from_top_to_bottom(monkeypatch, tmp_path):
    for key, value in environment(TMPDIR=str(tmp_path), MPLBACKEND='agg').items():
        monkeypatch.setenv(key, value)
    assert NOTEBOOK.stat().st_size < 300_000
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kernel = ['-m', 'ipykernel_launcher', '-f', '{connection_file}']
    client = nbclient.NotebookClient(notebook, timeout=120, resources=dict(metadata=dict(path=str(ROOT / 'docs'))))
    manager = client.create_kernel_manager()
    manager.kernel_spec.argv = [sys.executable, *kernel]  # this Python, whatever kernel is installed
    client.execute()
    said = ''.join(output.get('text', '') for cell in notebook.cells for output in cell.get('outputs', []))
    assert "'after': {'label'" in said and 'are wrong' in said
    if wrong := [one for one in said.splitlines() if one.endswith('are wrong')]:
        assert 0 < int(wrong[0].split()[0]) < 797
    # What the reader sees in the repository was printed by it, too.
    kept = nbformat.read(NOTEBOOK, as_version=4)
    assert all(cell.outputs for cell in kept.cells[3:] if cell.cell_type == 'code' and 'print' in cell.source)
