import copy
import json
import re
import runpy

from mmengine.registry import MODELS
from page_tables import fill

import mmresattn  # noqa: F401
from tests.conftest import ROOT


def test_tables_of_the_comparison_are_what_the_files_say():
    """Otherwise: python .dev_scripts/compare_tables.py --write"""
    script = runpy.run_path(str(ROOT / '.dev_scripts' / 'compare_tables.py'))
    page = script['PAGE'].read_text()
    results = json.loads((ROOT / 'configs/compare/results.json').read_text())
    photos = json.loads((ROOT / 'configs/photos/results.json').read_text())
    assert page == fill(page, script['tables'](results, photos))
    # One row for each system, each a registered part; and the numbers are those of the files.
    rows = script['systems'](results, photos).splitlines()[2:]
    assert len(rows) == len(script['SYSTEMS'])
    for system, row in zip(script['SYSTEMS'], rows):
        assert row.count(' | ') == 8 and (not system.family or MODELS.get(system.part)), row
    changed = copy.deepcopy(results)
    changed['faithfulness'][4]['road'] = [0.4321, 0.0]  # of the Attention Branch Network
    changed['speed']['abn-wrn16-2_cifar10']['test'] = 4
    page = fill(page, script['tables'](changed, photos))
    assert re.search(r'\| \[Attention Branch\].*ROAD 0.432 ± 0.000 \(centre 0.146\).* 250.0 ms \(2.3 ms\)', page)
    assert page.count('0.432 ± 0.000') == 2  # also in the table of all maps
    # Times per image are those of the table of costs.
    for name, speed in results['speed'].items():
        row = next(line for line in page.splitlines() if line.startswith(f'| [{name.removesuffix("_cifar10")}]('))
        assert f'| {speed["test"]} | {speed["training"]} |' in row
