import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from mmengine.config import config, utils
from mmengine.utils import ManagerMixin
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mmresattn.compat import enable, enable_operators
from mmresattn.models.layers import attention_maps, record_attention
from tools.deployment.export_onnx import WithMaps

ROOT = Path(__file__).parent.parent
if 'PYTEST_XDIST_WORKER' in os.environ:
    torch.set_num_threads(1)  # there is a worker for every core

enable()  # as tools and configs do
enable_operators()

# MMEngine formats the config for its log, its file and every checkpoint: most of the time of a tiny training.
config.FormatCode = lambda text, **style: (text, True)
# For every file of MMDetection or MMSegmentation that a config inherits from it parses all their metafiles and looks
# through all installed packages.
utils.load, config.is_installed = cache(utils.load), cache(config.is_installed)


def pytest_collection_finish():
    """MMEngine collects garbage after every read of a data set: not among the million objects of the modules."""
    gc.freeze()
    gc.enable()


class WithoutBatchNorm(TorchFunctionMode):
    """BatchNorm only scales and shifts, and that only where gradients are taken: fast on the meta device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return (affine if function is functional.batch_norm else function)(*args, **(kwargs or {}))


def affine(x, mean, variance, weight=None, bias=None, *args, **kwargs):
    if weight is None or not torch.is_grad_enabled():
        return x.clone()  # which an activation may overwrite
    shape = [-1] + [1] * (x.dim() - 2)
    return x * weight.view(shape) + bias.view(shape)


def record_if_any(model):
    """A context that records the maps of a model, and of a plain one gives none."""
    return record_attention(model) if attention_maps(model) else nullcontext({})


@pytest.fixture(autouse=True)
def no_run_is_left():
    """MMEngine's runners leave their scope, logger, message hub and visualizer behind, named after the second.

    The next run would take the last visualizer for its own, and, in the same second, all four.
    """
    yield
    classes = [ManagerMixin]
    for cls in classes:
        classes += cls.__subclasses__()
        cls._instance_dict.clear()


def check_onnx(model, images, file):
    """Export scores and maps to ONNX at one batch and hold ONNX Runtime against the model at another.

    By tracing, which takes a tenth of the time that tools/deployment/export_onnx.py needs.
    """
    onnxruntime = pytest.importorskip('onnxruntime', reason='needs requirements/deployment.txt')
    images, names = images.float(), list(attention_maps(model))
    wrapped = WithMaps(model.float(), names).eval()
    names = ['scores', *names]
    axes = {name: {0: 'batch'} for name in ('images', *names)}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(wrapped, (images[:1],), file, dynamo=False, input_names=['images'], output_names=names,
                          dynamic_axes=axes)  # fmt: skip
    session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    with torch.no_grad():
        expected = wrapped(images)
    for name, got, value in zip(names, session.run(None, {'images': images.numpy()}), expected, strict=True):
        torch.testing.assert_close(
            torch.from_numpy(got), value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f'{name}: {text}'
        )


@pytest.fixture
def saved_figures(monkeypatch):
    """The figures of Matplotlib that are written to files, by the names of the files."""
    figures, savefig = {}, Figure.savefig

    def save(figure, path, **kwargs):
        figures[Path(path).name] = figure
        savefig(figure, path, **kwargs)

    monkeypatch.setattr(Figure, 'savefig', save)
    return figures


ON_DEVICE = ('test_models', 'test_visualization', 'test_attention_inferencer')


@pytest.fixture(scope='session')
def device():
    """Where models and images of tests are: the CPU, or what ``MMRESATTN_DEVICE`` names, such as ``cuda``."""
    return torch.device(os.environ.get('MMRESATTN_DEVICE', 'cpu'))


@pytest.fixture(autouse=True, scope='module')
def made_on_device(request, device):
    """Tests of models, visualisation and inferencer make their tensors and layers there."""
    if device.type == 'cpu' or not any(name in str(request.path) for name in ON_DEVICE):
        yield
        return
    torch.set_default_device(device)
    yield
    torch.set_default_device(None)


def environment(**env):
    # Two processes a test on two cores: one thread each, and the same number everywhere, so that sums agree bit by bit.
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'PYTHONWARNINGS': 'ignore', **env}


# Processes are forked from a server that has done the imports and nothing else: the process of the tests may have
# threads of autograd, which no fork survives.
FORK_SERVER = multiprocessing.get_context('forkserver')
FORK_SERVER.set_forkserver_preload(['tests.conftest', 'mmpretrain.apis', 'mmresattn.apis'])


class Script:
    """A script that runs from the root in a process group of its own, without the seconds that imports take."""

    def __init__(self, *args, **env):
        self.folder = tempfile.TemporaryDirectory()
        self.process = FORK_SERVER.Process(target=run_script, args=(list(map(str, args)), env, self.folder.name))
        self.process.start()
        self.pid = self.process.pid

    def read(self, name):
        return (Path(self.folder.name) / name).read_text(errors='replace')

    @property
    def output(self):
        return self.read('stdout') + self.read('stderr')

    def wait(self):
        self.process.join()
        return self.process.exitcode

    def finish(self):
        assert self.wait() == 0, self.output[-3000:]
        return self.output


def run_script(args, env, folder):
    pytest_collection_finish()
    os.setsid()
    os.chdir(ROOT)
    multiprocessing.set_start_method('fork', force=True)
    os.environ.update(environment(**env))
    torch.set_num_threads(1)
    for fd, name in (1, 'stdout'), (2, 'stderr'):
        os.dup2(os.open(f'{folder}/{name}', os.O_WRONLY | os.O_CREAT), fd)
    sys.argv = args
    runpy.run_path(args[0], run_name='__main__')


@pytest.fixture(scope='session')
def python():
    """Runs Python on some arguments, from the root, on one thread, and returns the finished process."""

    def run(*args, **env):
        if not str(args[0]).endswith('.py'):
            return subprocess.run([sys.executable, *map(str, args)], cwd=ROOT, env=environment(**env),
                                  capture_output=True, text=True)  # fmt: skip
        script = Script(*args, **env)
        return subprocess.CompletedProcess(args, script.wait(), script.read('stdout'), script.read('stderr'))

    return run
