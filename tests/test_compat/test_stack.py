import re
import sys

import pytest

from mmresattn.compat.stack import check_stack
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ('package', 'version'),
    [('torch', '2.5.1'), ('mmengine', '0.7.0'), ('mmcv', '1.7.2'), ('mmpretrain', '1.0.0'), ('mmcv', '2.4.0')],
)
def test_a_package_out_of_range_is_named_with_its_cure(monkeypatch, package, version):
    monkeypatch.setattr(sys.modules[package], '__version__', version)
    with pytest.raises(ImportError, match=rf'needs {package} >= .*but {version} is installed. Run: pip install'):
        check_stack()


def test_importing_without_it_says_so(python, tmp_path, package='mmpretrain'):
    (tmp_path / f'{package}.py').write_text(f"raise ModuleNotFoundError('none', name='{package}')")
    done = python('-c', 'import mmresattn', PYTHONPATH=f'{tmp_path}:{ROOT}')
    said = rf'ImportError: mmresattn needs {package} >= .*not installed. Run: pip install {package}'
    assert re.search(said, done.stderr), done.stderr


def test_the_installed_stack_is_in_range():
    check_stack()
