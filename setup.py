import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


setup(
    name='mmresattn',
    version=re.search(r"'(.+)'", (ROOT / 'mmresattn' / 'version.py').read_text())[1],
    description='Residual Attention Networks and the visual attention around them, for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The mmresattn authors',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmresattn', 'mmresattn.*']),
    install_requires=requirements('runtime'),
    extras_require={'lite': requirements('lite'), 'tests': requirements('tests')},
    classifiers=[
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
