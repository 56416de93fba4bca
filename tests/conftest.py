import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

ROOT = Path(__file__).parent.parent
if 'PYTEST_XDIST_WORKER' in os.environ:
    torch.set_num_threads(1)  # there is a worker for every core


@pytest.fixture(autouse=True, scope='module')
def no_run_is_left():
    """MMEngine's runners leave their scope and visualizer behind, which the next file's hooks would take for theirs."""
    yield
    DefaultScope._instance_dict.clear()
    Visualizer._instance_dict.clear()


@pytest.fixture(scope='session')
def python():
    """Runs Python on some arguments, from the root, on one thread, and returns the finished process."""

    def run(*args, **env):
        return subprocess.run([sys.executable, *map(str, args)], cwd=ROOT, env=environment(**env), capture_output=True,
                              text=True)  # fmt: skip

    return run


def environment(**env):
    # Two processes a test on two cores: one thread each, and the same number everywhere, so that sums agree bit by bit.
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'PYTHONWARNINGS': 'ignore', **env}
