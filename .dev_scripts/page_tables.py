"""Tables of a page that are generated: between ``<!-- table: NAME -->`` and ``<!-- end -->``."""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path


def fill(page: str, tables: Mapping[str, str]) -> str:
    """A page with its tables replaced, by their names; each ends in a line break."""
    for name, table in tables.items():
        block = rf'(?s)(<!-- table: {name} -->\n).*?(<!-- end -->)'
        page = re.sub(block, lambda found, table=table: found[1] + table + found[2], page)
    return page


def write_or_check(path: Path, tables: Mapping[str, str], doc: str) -> None:
    """The command line of a script that fills a page: with ``--write`` it writes, otherwise it says what differs."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--write', action='store_true', help='write the tables')
    args = parser.parse_args()
    page = path.read_text()
    new = fill(page, tables)
    if args.write:
        path.write_text(new)
    elif new != page:
        sys.exit(f'{path} differs from the results: run this script with --write.')
