import os
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from mmengine.config import config
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

FORMATTED, format_code = {}, config.FormatCode


def format_once(text, **style):
    """MMEngine formats the same config for its log, files and every checkpoint: most of the time of a tiny training."""
    if text not in FORMATTED:
        FORMATTED[text] = format_code(text, **style)
    return FORMATTED[text]


config.FormatCode = format_once


class WithoutBatchNorm(TorchFunctionMode):
    """BatchNorm changes neither shapes nor multiply-adds, and takes most of the time on the meta device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return args[0] if function is functional.batch_norm else function(*args, **(kwargs or {}))


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
