"""Importing the package changes nothing in others, and what it can change is switched on by a call."""

import textwrap

CODE = """
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
    print('done')
"""


def test_import_changes_nothing_and_the_cures_only_what_they_name(python):
    done = python('-c', textwrap.dedent(CODE))
    assert done.stdout.endswith('done\n'), done.stderr[-2000:]
