import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import ROOT

onnxruntime = pytest.importorskip('onnxruntime', reason='needs requirements/deployment.txt')
pytest.importorskip('onnxscript', reason='needs requirements/deployment.txt')
DIGITS = ROOT / 'configs/resattn/attention56_digits.py'


def test_what_is_exported_gives_the_scores_and_maps_of_the_model(tmp_path, python):
    """At a batch and a size that were not traced; in 8 bits nearly so."""
    from mmengine.config import Config
    from mmpretrain.registry import MODELS

    from mmresattn.models.layers import record_attention

    torch.manual_seed(0)
    arch = dict(base='attention56-cifar', channels=(8, 16, 32), modules=(0, 1, 0), units_after=(0, 0, 0))
    config = Config.fromfile(DIGITS)
    config.model.backbone.arch, config.model.head.in_channels = arch, 32
    config.model.backbone.pop('_delete_', None)
    config.dump(tmp_path / 'tiny.py')
    model = MODELS.build(config.model)
    model.init_weights()
    model.train()
    model(torch.randn(8, 3, 16, 16), mode='tensor')  # statistics of some data
    model.eval()
    save_file(model.state_dict(), tmp_path / 'tiny.safetensors')

    done = python('tools/deployment/export_onnx.py', tmp_path / 'tiny.py', tmp_path / 'tiny.safetensors',
                  tmp_path / 'tiny.onnx', '--size', 16, 16, '--int8', '--calibration', 8, '--images', 20,
                  '--torch-export')  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'onnx: ' in done.stdout and 'int8: ' in done.stdout and ' % of 20 images' in done.stdout
    images = torch.randn(3, 3, 27, 40)
    with torch.no_grad(), record_attention(model) as maps:
        logits = model(images, mode='tensor')
    expected = {'logits': logits, **maps}
    for file, statistic, tolerance in [('tiny.onnx', np.max, 1e-4), ('tiny.int8.onnx', np.mean, 0.1)]:
        run = onnxruntime.InferenceSession(str(tmp_path / file), providers=['CPUExecutionProvider'])
        assert [out.name for out in run.get_outputs()] == ['logits', 'backbone.stage2.attention1.map']
        for out, value in zip(run.run(None, {'images': images.numpy()}), expected.values()):
            assert out.shape == tuple(value.shape)
            assert statistic(np.abs(out - value.numpy())) <= tolerance * float(value.abs().max())
    program = torch.export.load(tmp_path / 'tiny.pt2')
    for out, value in zip(program.module()(images), expected.values()):
        torch.testing.assert_close(out, value, rtol=1e-4, atol=1e-5)
