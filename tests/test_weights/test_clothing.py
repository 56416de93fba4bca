"""The network for clothes: by its name, on the photographs of docs, and in ONNX with NumPy alone."""

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmresattn.models.layers import attention_maps
from mmresattn.visualization.overlay import resize_map
from tests.conftest import ROOT
from tools.deployment.export_onnx import WithMaps

pytest.importorskip('timm')
NAME = 'clothing_abn_efficientnet-lite0'
PHOTOS = ROOT / 'docs/images/photos'


@pytest.fixture(scope='module')
def inferencer():
    from mmresattn.apis import AttentionInferencer

    return AttentionInferencer(NAME, device='cpu')


def test_photographs_of_docs_get_their_class_by_name_and_a_map(inferencer):
    files = sorted(PHOTOS.glob('*.jpg'))
    assert len(files) == 12
    results = inferencer([str(file) for file in files], batch_size=6, on_image=True)
    right = [result['pred_class'] == file.stem.rpartition('_')[0] for result, file in zip(results, files)]
    assert sum(right) >= 11
    for result, file in zip(results, files):
        (name, attention), (_, placed) = *result['attention'].items(), *result['attention_on_image'].items()
        assert name == 'neck.map' and attention.shape == (1, 10, 10) and 0 <= attention.min() <= attention.max() <= 1
        assert attention.std() > 0.02
        assert placed.shape == Image.open(file).size[::-1] and placed.isfinite().all()


def test_the_script_of_the_page_draws_the_map_without_pytorch(inferencer, tmp_path, monkeypatch, capsys):
    """Against the inferencer; the script itself imports neither PyTorch nor this package."""
    pytest.importorskip('onnxruntime', reason='needs requirements/deployment.txt')
    model = inferencer.model
    wrapped = WithMaps(model, list(attention_maps(model))).eval()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(wrapped, (torch.zeros(1, 3, 160, 160),), tmp_path / 'clothing.onnx', dynamo=False,
                          input_names=['images'], output_names=['logits', 'neck.map'])  # fmt: skip
    page = (ROOT / 'docs/photos.md').read_text()
    (script,) = re.findall(r'```python[^\n]*\n(import numpy as np\nimport onnxruntime.*?)```', page, re.S)
    assert not re.search('torch|mmresattn', script)
    photo = PHOTOS / 'hat_0009.jpg'
    Image.open(photo).save(tmp_path / 'photo.jpg', quality=95)
    monkeypatch.chdir(tmp_path)
    exec(script, found := {})
    (result,) = inferencer(str(tmp_path / 'photo.jpg'))
    assert capsys.readouterr().out.split()[0] == result['pred_class'] == 'hat'
    np.testing.assert_allclose(found['attention'][0], result['attention']['neck.map'], atol=0.02)
    pixels, (light,) = np.asarray(Image.open('photo.jpg'), np.float32), result['attention']['neck.map']
    light = resize_map((light - light.min()) / (light.max() - light.min()), pixels.shape[:2])[..., None]
    drawn = np.asarray(Image.open('map.png'), np.float32)
    assert np.abs(drawn - pixels * (0.2 + 0.8 * np.asarray(light))).max() < 8  # the maps differ by 0.02, see above


@torch.no_grad()
def test_accuracy_on_some_photographs_is_the_stated_one():
    data = Path(os.environ.get('MMRESATTN_DATA', 'data'), 'clothing')
    if len(list((data / 'test').glob('*/*.jpg'))) != 372:
        pytest.skip(f'{data}/test does not have the 372 test photographs; MMRESATTN_DATA names the folder of clothing/')
    from mmresattn.apis import load_classifier

    config, weights = (str(ROOT / path) for path in (f'configs/photos/{NAME}.py', f'weights/{NAME}.safetensors'))
    model, loader = load_classifier(config, weights, max_images=100)
    model = model.to(memory_format=torch.channels_last)
    samples = [sample for batch in loader for sample in model.test_step(batch)]
    right = 100 * np.mean([int(sample.pred_label) == int(sample.gt_label) for sample in samples])
    stated = re.search(rf'\[{NAME}\].*?\| ([\d.]+) % \|', (ROOT / 'weights/README.md').read_text())
    accuracy = float(stated[1])
    assert right == pytest.approx(accuracy, abs=3 * (accuracy * (100 - accuracy) / 100) ** 0.5)  # deviations
