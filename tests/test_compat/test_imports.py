"""Importing the package changes nothing in others, and what it can change is switched on by a call.

Each check runs in a process that has imported none of this package, MMPretrain, MMDetection and MMSegmentation: all are
forked from one that has done the slow imports of PyTorch and MMEngine.
"""

import importlib.util
import json
import textwrap

import pytest

from tests.test_registry import REGISTERED

PARENT = """
    import json
    import multiprocessing
    import sys
    import traceback

    import cv2
    import mmengine.runner
    import torchvision

    def run(code, said):
        try:
            exec(code, {})
            said.put('')
        except BaseException:
            said.put(traceback.format_exc())

    context = multiprocessing.get_context('fork')
    for code in sys.argv[1:]:
        said = context.SimpleQueue()
        process = context.Process(target=run, args=(code, said))
        process.start()
        process.join()
        print('RESULT', json.dumps(f'status {process.exitcode}' if said.empty() else said.get()))
"""

CHANGES = """
    import sys
    import types
    import warnings

    warnings.simplefilter('ignore')
    import mmcv.cnn.bricks.transformer
    import mmengine.runner
    import mmpretrain.apis.model
    import mmpretrain.models
    import torch
    from mmengine.runner import CheckpointLoader

    PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmpretrain')

    def state():
        # Everything that stands in modules and classes of these packages.
        found = {}
        for name, module in list(sys.modules.items()):
            for key, value in list(vars(module).items()) if name.split('.')[0] in PACKAGES else ():
                if not isinstance(value, types.ModuleType) and key != '__warningregistry__':
                    found[name, key] = value
                if isinstance(value, type) and value.__module__ == name:
                    found.update({(name, key, part): inner for part, inner in vars(value).items()})
        return found

    def changed():
        after = state()
        ignored = '_abc_impl', '__annotations__'
        return {'.'.join(key) for key in before if after.get(key) is not before[key] and key[-1] not in ignored}

    before, finders, schemes = state(), list(sys.meta_path), dict(CheckpointLoader._schemes)
    safe = set(torch.serialization.get_safe_globals())
    import mmresattn

    assert not changed(), changed()
    assert sys.meta_path == finders and set(torch.serialization.get_safe_globals()) == safe
    assert 'attention56_cifar10_fast' in mmpretrain.apis.model.ModelHub._models_dict
    own = CheckpointLoader._schemes.keys() - schemes.keys()
    assert own == {'mmresattn://'} and all(CheckpointLoader._schemes[key] is schemes[key] for key in schemes)

    import mmresattn.compat.enabled

    assert changed() == {
        'mmengine.model.weight_init.PretrainedInit.__call__',
        'mmpretrain.models.backbones.resnet.ResNet.__init__',
        'torch._weights_only_unpickler._marked_safe_globals_set',
    }, changed()
    assert sys.meta_path == finders  # MMCV still says that it has no operators
    assert not any(CheckpointLoader._schemes[key] is schemes[key] for key in schemes)

    import mmresattn.compat.operators_enabled
    import mmcv.ops

    assert len(sys.meta_path) == len(finders) + 1
"""

LATE = """
    # After MMPretrain has read its own index, and without what MMPretrain can do without.
    import sys

    extras = ('transformers', 'accelerate', 'open_clip', 'albumentations', 'pycocotools', 'pytorch_grad_cam')
    sys.modules.update(dict.fromkeys(extras))
    import mmpretrain

    own = set(mmpretrain.list_models())
    import mmresattn

    assert set(mmpretrain.list_models()) > own
    assert 'attention92_imagenet' in mmpretrain.list_models('attention92_imagenet')
"""

SCOPED = f"""
    # With MMEngine alone; from the root and from the scope of MMPretrain.
    from mmengine import registry

    for name, key in {REGISTERED}:
        part = getattr(registry, name).get('mmresattn.' + key)
        assert part.__name__ == key, (name, key, part)
    import mmpretrain.registry

    for name, key in {REGISTERED}:
        node = getattr(mmpretrain.registry, name, getattr(registry, name))
        assert node.get('mmresattn.' + key).__name__ == key
"""

CODES = {
    'import changes nothing, and the cures only what they name': CHANGES,
    'import comes late and without extras': LATE,
    'scoped names resolve with no import': SCOPED,
}
DENSE = {
    'first': """
    import sys, mmresattn.compat.operators_enabled
    assert 'mmcv.ops' not in sys.modules  # costs nothing yet
    import mmdet.models, mmseg.models
    """,
    'after MMPretrain': """
    import mmpretrain.models, mmresattn.compat.operators_enabled, mmdet.apis, mmdet.evaluation
    """,
    'by a config, after the bare packages': """
    import mmdet.utils, mmseg.registry
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    Config.fromstring("custom_imports = dict(imports=['mmresattn.compat.operators_enabled'])", '.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert MODELS.get('MaskRCNN').__module__ == 'mmdet.models.detectors.mask_rcnn'
    import mmseg.utils, mmseg.apis
    """,
}
if importlib.util.find_spec('mmdet') and importlib.util.find_spec('mmseg'):
    CODES |= {f'operators, {order}': code for order, code in DENSE.items()}


@pytest.fixture(scope='module')
def said(python):
    """By the name of a check the error that it ended with, if any."""
    done = python('-c', textwrap.dedent(PARENT), *map(textwrap.dedent, CODES.values()))
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix('RESULT ') for line in done.stdout.splitlines() if line.startswith('RESULT ')]
    return dict(zip(CODES, map(json.loads, lines), strict=True))


@pytest.mark.parametrize('name', CODES)
def test_in_a_fresh_process(said, name):
    assert not said[name], said[name]
