"""Draw the badges of README.md from what .dev_scripts/compatibility.py has tried: docs/images/badges/*.svg.

python .dev_scripts/draw_badges.py
"""

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BADGES = ROOT / 'docs' / 'images' / 'badges'


def badges() -> dict[str, str]:
    """What each badge says, with the first and last version in whose environment every check passed."""
    environments = runpy.run_path(str(ROOT / '.dev_scripts/compatibility.py'))['ENVIRONMENTS']
    results = json.loads((ROOT / '.dev_scripts/compatibility.json').read_text())
    passed = [environments[name] for name, checks in results.items() if set(checks.values()) == {'yes'}]
    pythons = sorted({python for python, _ in passed}, key=lambda version: int(version.split('.')[1]))
    torches = sorted({versions['torch'].rsplit('.', 1)[0] for _, versions in passed})
    (pretrain,) = {versions['mmpretrain'] for _, versions in passed if 'mmpretrain' in versions}
    return dict(
        Python=f'{pythons[0]} to {pythons[-1]}',
        PyTorch=f'{torches[0]} to {torches[-1]}',
        MMPretrain=pretrain,
        licence='Apache 2.0',
    )


def svg(name: str, version: str) -> str:
    left, right = (7 * len(text) + 12 for text in (name, version))
    label = '<text x="{}" y="14" text-anchor="middle" textLength="{}" fill="#fff">{}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="{name} {version}" font-family="Verdana, sans-serif" font-size="11">'
        f'<rect width="{left}" height="20" fill="#444"/><rect x="{left}" width="{right}" height="20" fill="#1f5f99"/>'
        f'{label.format(left / 2, left - 12, name)}{label.format(left + right / 2, right - 12, version)}</svg>\n'
    )


if __name__ == '__main__':
    BADGES.mkdir(exist_ok=True)
    for name, version in badges().items():
        (BADGES / f'{name.lower()}.svg').write_text(svg(name, version))
