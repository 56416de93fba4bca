"""Fill the tables of docs/photos.md from configs/photos/results.json.

python .dev_scripts/photos_tables.py            # says whether the page is what the results say
python .dev_scripts/photos_tables.py --write    # writes the tables
"""

import json
from pathlib import Path

from page_tables import write_or_check

from mmresattn.apis.command_line import markdown_table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'photos.md'
RESULTS = ROOT / 'configs' / 'photos' / 'results.json'


def accuracy(rows: list[dict]) -> str:
    """Accuracy and time of each training."""
    cells = []
    for row in rows:
        name = f'[{row["config"]}](../configs/photos/{row["config"]}.py)'
        test = f'{row["test"]:.2f} %' if row['test'] else ''
        minutes = f'{row["minutes"]:.1f} min' if row['minutes'] else ''
        cells.append((name, row['start'], row['epochs'], f'{row["val"]:.2f} %', test, minutes))
    return markdown_table(('network', 'starts from', 'epochs', 'val', 'test', 'processor time'), cells, (0, 1))


def faithfulness(rows: list[dict]) -> str:
    """Measures of each map, with standard errors."""
    names = dict(road='ROAD', pointing='on the garment', overlap='overlap')
    measures = [name for name in names if any(name in row for row in rows)]
    cells = [
        (
            row['network'],
            row['map'],
            *(f'{row[name][0]:.3f} ± {row[name][1]:.3f}' if name in row else '' for name in measures),
        )
        for row in rows
    ]
    return markdown_table(('network', 'map', *(names[name] for name in measures)), cells, (0, 1))


def tables(results: dict) -> dict[str, str]:
    """All tables of the page that have results."""
    return {name: table(results[name]) for name, table in TABLES.items() if results.get(name)}


TABLES = dict(accuracy=accuracy, faithfulness=faithfulness)

if __name__ == '__main__':
    write_or_check(PAGE, tables(json.loads(RESULTS.read_text())), __doc__)
