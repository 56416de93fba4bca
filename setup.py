import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).parent
EXTRAS = ('lite', 'detection', 'segmentation', 'photos', 'captioning', 'editor', 'deployment', 'docs', 'tests')
RELEASE = runpy.run_path(str(ROOT / '.dev_scripts' / 'release.py'))  # version, address, README.md with absolute links
MIM = ('configs', 'tools', 'model-index.yml', 'dataset-index.yml')


def requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


class BuildWithMim(build_py):
    """What mim reads is in mmresattn/.mim: copies in a wheel, and links in the clone of an editable install."""

    def run(self):
        super().run()
        folder = Path('' if self.editable_mode else self.build_lib, 'mmresattn', '.mim')
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in MIM:
            if self.editable_mode:
                (folder / name).symlink_to(Path('..', '..', name))
            elif Path(name).is_dir():
                shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy(name, folder)


class EditableWheelForMim(editable_wheel):
    """mim joins the folder of the metadata and the first line of top_level.txt, which a full path survives."""

    def _ensure_dist_info(self):
        super()._ensure_dist_info()
        names = Path(self.dist_info_dir, 'top_level.txt')
        names.write_text(f'{ROOT.resolve() / "mmresattn"}\n{names.read_text()}')


setup(
    name='mmresattn',
    version=RELEASE['VERSION'],
    description='Residual Attention Networks and the visual attention around them, for OpenMMLab',
    long_description=RELEASE['long_description'](),
    long_description_content_type='text/markdown',
    author='The mmresattn authors',
    url=RELEASE['REPOSITORY'],
    project_urls={
        'Documentation': RELEASE['SITE'],
        'Changelog': f'{RELEASE["REPOSITORY"]}/blob/main/CHANGELOG.md',
        'Issues': f'{RELEASE["REPOSITORY"]}/issues',
    },
    license='Apache-2.0',
    cmdclass=dict(build_py=BuildWithMim, editable_wheel=EditableWheelForMim),
    python_requires='>=3.10',
    packages=find_packages(include=['mmresattn', 'mmresattn.*']),
    package_data={'mmresattn': ['evaluation/*.jinja'], 'mmresattn.editor': ['static/*', 'static/vendor/*']},
    install_requires=requirements('runtime'),
    extras_require={name: requirements(name) for name in EXTRAS},
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 14)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
