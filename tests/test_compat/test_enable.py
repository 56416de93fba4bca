"""Importing the package changes nothing in others, and what it can change is switched on by a call."""

import textwrap

CODE = """
    import sys
    import types
    import warnings

    warnings.simplefilter('ignore')
    import torch
    import mmcv.cnn.bricks.transformer
    import mmcv.utils
    import mmengine.runner
    import mmpretrain.apis.model
    import mmpretrain.models

    def state():
        found = {}
        for name, module in list(sys.modules.items()):
            if name.split('.')[0] in ('torch', 'mmengine', 'mmcv', 'mmpretrain') and isinstance(module, types.ModuleType):
                for key, value in list(vars(module).items()):
                    if isinstance(value, types.ModuleType) or key == '__warningregistry__':
                        continue
                    found[name, key] = value
                    if isinstance(value, type) and value.__module__ == name:
                        found.update({(name, key, part): inner for part, inner in vars(value).items()})
        return found

    def changed(before):
        after = state()
        return sorted(
            '.'.join(key) for key in before if after.get(key) is not before[key] and key[-1] not in ('_abc_impl', '__annotations__')
        )

    def process():
        return list(sys.meta_path), set(torch.serialization.get_safe_globals()), dict(
            mmengine.runner.CheckpointLoader._schemes), mmcv.utils.env.__dict__.copy()

    before, (finders, safe, schemes, _) = state(), process()
    import mmresattn

    new = {scheme for scheme in mmengine.runner.CheckpointLoader._schemes if scheme not in schemes}
    assert new == {'mmresattn://'}, new
    assert all(mmengine.runner.CheckpointLoader._schemes[key] is schemes[key] for key in schemes)
    assert sys.meta_path == finders and set(torch.serialization.get_safe_globals()) == safe
    assert not changed(before), changed(before)
    assert 'attention56_cifar10_fast' in mmpretrain.list_models()

    import mmresattn.compat.enabled

    assert sys.meta_path == finders
    assert set(changed(before)) <= {
        'mmengine.model.weight_init.PretrainedInit.__call__', 'mmpretrain.models.backbones.resnet.ResNet.__init__',
        'torch._weights_only_unpickler._marked_safe_globals_set'}, changed(before)
    assert mmengine.runner.CheckpointLoader._schemes['http://'] is not schemes['http://']

    import mmresattn.compat.operators_enabled

    assert len(sys.meta_path) == len(finders) + 1
    import mmcv.ops
    print('done')
"""


def test_import_changes_nothing_and_the_cures_only_what_they_name(python):
    done = python('-c', textwrap.dedent(CODE))
    assert done.stdout.endswith('done\n'), done.stderr[-2000:]
