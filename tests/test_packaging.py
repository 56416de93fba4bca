import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import zipfile
from email import message_from_bytes
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip('setuptools', minversion='70.1', reason='needs setuptools >= 70.1, which builds wheels by itself')


def run(*command, cwd, **env):
    """Run a command that knows nothing of the source tree."""
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore', **env}
    env.pop('PYTHONPATH', None)
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def build(hooks, source):
    """Call build hooks of setuptools (PEP 517 and 660) in a folder."""
    run(sys.executable, '-c', f'from setuptools.build_meta import *; {hooks}', cwd=source)


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """A copy of what is in the repository, so that nothing is built in it."""
    clone = tmp_path_factory.mktemp('clone') / 'mmresattn'
    folders = ('.dev_scripts', 'configs', 'docs', 'mmresattn', 'requirements', 'tests', 'tools', 'weights')
    for folder in folders:
        ignored = shutil.ignore_patterns('__pycache__', '.mim')
        shutil.copytree(ROOT / folder, clone / folder, ignore=ignored)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, clone)
    return clone


@pytest.fixture(scope='module')
def wheel(clone, tmp_path_factory):
    """The wheel, built from the sdist: what is not in the one cannot get into the other."""
    folder = tmp_path_factory.mktemp('dist')
    build(f'build_sdist({str(folder)!r})', clone)
    (sdist,) = folder.glob('mmresattn-*.tar.gz')
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter='data')
    build(f'build_wheel({str(folder)!r})', folder / sdist.name.removesuffix('.tar.gz'))
    return next(folder.glob('mmresattn-*.whl'))


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """Python of a virtual environment in which the wheel is installed, and its package.

    It sees all other packages of the environment of these tests, but no source tree.
    """
    venv = tmp_path_factory.mktemp('venv')
    run(sys.executable, '-m', 'venv', '--without-pip', venv, cwd=venv)
    python = venv / 'bin' / 'python'
    run(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index', wheel, cwd=venv)
    (package,) = venv.glob('lib/python*/site-packages/mmresattn')
    (package.parent / 'outer.pth').write_text(sysconfig.get_path('purelib'))
    return python, package


def test_wheel_is_small_and_holds_the_package_and_what_mim_reads(clone, wheel):
    assert wheel.stat().st_size < 2**20
    with zipfile.ZipFile(wheel) as archive:
        sizes = {Path(entry.filename): entry.file_size for entry in archive.infolist()}
    files = {file for file in sizes if not file.parts[0].endswith('.dist-info')}
    assert {file.parts[0] for file in files} == {'mmresattn'}
    assert max(sizes.values()) < 200_000
    mim = Path('mmresattn', '.mim')
    expected = [path for path in clone.glob('mmresattn/**/*') if path.is_file()]
    expected += [
        mim / file.relative_to(clone) for folder in ('configs', 'tools') for file in clone.glob(f'{folder}/**/*.*')
    ]
    expected += [mim / 'model-index.yml', mim / 'dataset-index.yml']
    assert files == {file.relative_to(clone) if file.is_absolute() else file for file in expected}


def test_links_of_the_description_on_the_package_index_are_absolute(wheel):
    """Rendered, as a person sees it there."""
    markdown = pytest.importorskip('markdown', reason='needs requirements/docs.txt')
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        metadata = message_from_bytes(archive.read(file))
    links = []

    class Page(HTMLParser):
        def handle_starttag(self, tag, attributes):
            links.extend(value for name, value in attributes if name in ('href', 'src'))

    Page().feed(markdown.markdown(metadata.get_payload(), extensions=['fenced_code', 'tables']))
    assert len(links) > 10 and [link for link in links if not link.startswith('https://')] == []
    release = runpy.run_path(str(ROOT / '.dev_scripts/release.py'))
    address, version = release['REPOSITORY'], release['VERSION']
    assert f'{address}/blob/v{version}/LICENSE' in links and metadata['Version'] == version
    for link in links:  # what they name is there
        if found := re.match(rf'{address}/(?:raw|blob)/v{version}/([^#]+)', link):
            assert (ROOT / found[1]).exists(), link


def test_badges_say_what_was_tried(wheel):
    """Otherwise: python .dev_scripts/draw_badges.py"""
    draw = runpy.run_path(str(ROOT / '.dev_scripts/draw_badges.py'))
    badges, readme = draw['badges'](), (ROOT / 'README.md').read_text()
    for name, version in badges.items():
        assert f'[![{name} {version}](docs/images/badges/{name.lower()}.svg)]' in readme
        drawn = (ROOT / f'docs/images/badges/{name.lower()}.svg').read_text()
        assert drawn == draw['svg'](name, version) and f'>{version}<' in drawn
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        stated = re.findall(r'Programming Language :: Python :: (3\.\d+)', archive.read(file).decode())
    assert f'{stated[0]} to {stated[-1]}' == badges['Python']


def test_version_and_address_are_the_same_everywhere(tmp_path, monkeypatch):
    """Otherwise: python .dev_scripts/release.py --write"""
    script = runpy.run_path(str(ROOT / '.dev_scripts/release.py'))
    assert [name for name in script['STATED'] if script['is_wrong'](name)] == []
    assert 'the tag is v0.0.1' in ' '.join(script['problems']('v0.0.1'))
    source = (ROOT / '.dev_scripts/release.py').read_text()
    for name in ('mmresattn/version.py', *script['STATED']):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / '.dev_scripts').mkdir()
    (tmp_path / '.dev_scripts/release.py').write_text(source.replace('/OWNER/', '/Some-One/'))
    run(sys.executable, '.dev_scripts/release.py', '--write', cwd=tmp_path)
    texts = {name: (tmp_path / name).read_text() for name in script['STATED']}
    assert all('https://github.com/Some-One/mmresattn' in text and 'OWNER' not in text for text in texts.values())
    assert 'https://some-one.github.io/mmresattn/' in texts['CITATION.cff']


def test_wheel_knows_its_models_and_trains_outside_of_the_source_tree(installed, tmp_path):
    python, package = installed
    mim = package / '.mim'
    # As `mim train mmresattn attention56_digits.py` calls it; three iterations.
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.num_workers=0']
    options += ['train_dataloader.dataset.indices=96', 'val_dataloader.dataset.indices=8']
    config = mim / 'configs/resattn/attention56_digits.py'
    train = [str(mim / 'tools/train.py'), str(config), '--launcher', 'none', '--cfg-options', *options]
    code = f"""
        import os, runpy, sys
        import mmresattn
        from mmpretrain import get_model, list_models

        assert mmresattn.__file__ == {str(package / '__init__.py')!r}
        assert 'attention56_imagenet' in list_models('attention*')
        try:
            get_model('attention56_cifar10_fast', pretrained=True)
        except FileNotFoundError as error:
            assert 'MMRESATTN_WEIGHTS' in str(error)
        else:
            raise AssertionError('a wheel has no weights')
        os.environ['MMRESATTN_WEIGHTS'] = {str(ROOT / 'weights')!r}
        model = get_model('attention56_cifar10_fast', pretrained=True)
        print('config of', model._config.filename)
        sys.argv = {train}
        runpy.run_path(sys.argv[0], run_name='__main__')
    """
    printed = run(python, '-c', textwrap.dedent(code), cwd=tmp_path)
    assert f'config of {mim}/configs/resattn/attention56_cifar10_fast.py' in printed
    assert 'Epoch(val) [1][1/1]    accuracy/top1: ' in printed
    assert (tmp_path / 'work_dirs/attention56_digits/epoch_1.pth').is_file()


def test_mim_finds_an_editable_install_in_its_clone(clone, tmp_path):
    """It joins the folder of the metadata and the first line of top_level.txt, and looks for .mim there."""
    hooks = f'metadata = prepare_metadata_for_build_editable({str(tmp_path)!r}); '
    hooks += f'build_editable({str(tmp_path)!r}, {{}}, os.path.join({str(tmp_path)!r}, metadata))'
    build(f'import os; {hooks}', clone)
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as archive:
        (names,) = (name for name in archive.namelist() if name.endswith('top_level.txt'))
        first, second = archive.read(names).decode().split()
    mim = Path(tmp_path, first, '.mim')
    assert second == 'mmresattn'
    for name in ('configs', 'tools', 'model-index.yml', 'dataset-index.yml'):
        assert (mim / name).resolve() == clone / name
