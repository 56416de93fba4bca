import pytest
from mmengine import registry as root
from mmengine.registry import DefaultScope

import mmresattn
from mmresattn import registry


def registered():
    """Every name of this package at the root, with its registry."""
    for name, node in vars(root).items():
        for key, part in node.module_dict.items() if isinstance(node, root.Registry) else ():
            if part.__module__.startswith('mmresattn.'):
                yield name, key


REGISTERED = sorted(registered())


def test_there_are_some():
    assert ('MODELS', 'ResidualAttentionNet') in REGISTERED and len(REGISTERED) >= 5


def test_every_registry_in_use_has_a_child():
    for name in vars(root):
        node = getattr(root, name)
        if isinstance(node, root.Registry) and any(
            part.__module__.startswith('mmresattn.') for part in node.module_dict.values()
        ):
            assert getattr(registry, name).parent is node and getattr(registry, name).scope == 'mmresattn'


@pytest.mark.parametrize(('name', 'key'), REGISTERED)
def test_plain_names_resolve_from_the_scope_of_mmpretrain(name, key):
    import mmpretrain.registry

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        node = getattr(mmpretrain.registry, name, getattr(root, name))  # MMPretrain has no functions of its own
        assert node.get(key) is getattr(root, name).module_dict[key]
    assert getattr(root, name).module_dict[key].__name__ == key
    assert mmresattn.__version__
