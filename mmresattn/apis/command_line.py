"""The manners of all command lines: help that shows every default, mistakes of the user in one line, and tables."""

import argparse
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.table import Table

Result = TypeVar('Result')
PACKAGE = Path(__file__).parents[1]
WORKER_ERROR = re.compile(r'Caught (\w+) in DataLoader worker process .*File "([^"]+)"[^\n]*\n\s*raise [^\n]*', re.S)


class ArgumentParser(argparse.ArgumentParser):
    """Python's parser with ``--traceback``, whose help ends in the default of each argument that has one."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.add_argument('--traceback', action='store_true', help='show where an error comes from')

    def format_help(self) -> str:
        """The help text."""
        for action in self._actions:
            if action.default not in (None, argparse.SUPPRESS) and 'default' not in (action.help or ''):
                action.help = '; '.join(filter(None, [action.help, f'default: {_readable(action.default)}']))
        return super().format_help()


def markdown_table(header: Sequence, rows: Iterable[Sequence], text_columns: Sequence[int] = (0,)) -> str:
    """A table in Markdown.

    Args:
        header (Sequence): Names of the columns.
        rows (Iterable[Sequence]): Cells, as many in each row.
        text_columns (Sequence[int]): Columns that are aligned to the left, from 0; the others are numbers. Defaults to
            the first.

    Returns:
        str: Its lines, with a line break at the end.
    """
    rule = ['---' if column in text_columns else '---:' for column in range(len(header))]
    return ''.join(f'| {" | ".join(map(str, row))} |\n' for row in (header, rule, *rows))


def print_table(title: str, header: Sequence, rows: Sequence[Sequence], text_columns: Sequence[int] = (0,)) -> None:
    """Print a table for people: see :func:`markdown_table`."""
    table = Table(title=title)
    for column, name in enumerate(header):
        table.add_column(name, justify='left' if column in text_columns else 'right', overflow='fold')
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _readable(default) -> str:
    if isinstance(default, bool):
        return 'on' if default else 'off'
    values = default if isinstance(default, (list, tuple)) else [default]
    return ' '.join(str(value) for value in values).replace('%', '%%') or 'none'


def run_tool(main: Callable[[], Result]) -> Result:
    """Call the main function of a tool. A mistake of the user ends it with one line on stderr and exit status 2.

    Any other error is a fault of the program and ends in a traceback; with ``--traceback`` each does.

    Args:
        main (Callable): Parses the command line and works.

    Returns:
        Any: What the function returns.
    """
    try:
        return main()
    except Exception as error:
        message = mistake(error, Path(main.__code__.co_filename))
        if message is None or '--traceback' in sys.argv:
            raise
        line = ' '.join(message.split())
        print(f'{Path(sys.argv[0]).name}: error: {line} (--traceback shows where)', file=sys.stderr)
        sys.exit(2)


def mistake(error: Exception, tool: Path) -> str | None:
    """What to tell the user of an error that is not a fault of the program.

    Mistakes are files that cannot be read or written, configs that MMEngine cannot read, types that no registry knows,
    errors that this package or the tool raises on purpose, that is by a ``raise`` of their own, and workers of
    dataloaders that are killed.

    Args:
        error (Exception): The error.
        tool (Path): File of the tool.

    Returns:
        str | None: The message; None for a fault of the program.
    """
    cause = error
    while cause is not None:  # the death of a worker interrupts whatever the main process is doing
        if isinstance(cause, RuntimeError) and 'DataLoader worker (pid' in str(cause):
            return f'{cause} Too little memory? Try fewer workers (num_workers=...) or smaller batches.'
        cause = cause.__cause__ or cause.__context__
    if found := WORKER_ERROR.match(str(error)):
        name, file = found.groups()
        ours = _is_ours(Path(file), tool) or isinstance(error, OSError)
        return str(error)[found.end() :].rpartition(f'{name}: ')[2] if ours else None
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f'{error.filename}: {error.strerror}'
    if _is_of_config(error.__traceback__):
        return f'The config cannot be read: {type(error).__name__}: {error}'
    unknown = isinstance(error, KeyError) and ' is not in the ' in str(error)
    if isinstance(error, OSError) or unknown or _raised_on_purpose(error.__traceback__, tool):
        return str(error.args[0]) if isinstance(error, KeyError) else str(error) or type(error).__name__
    return None


def _is_ours(file: Path, tool: Path) -> bool:
    return file.resolve().is_relative_to(PACKAGE.resolve()) or file.resolve() == tool.resolve()


def _is_of_config(frames: TracebackType | None) -> bool:
    """Whether an error comes out of reading a config or changing it by ``--cfg-options``."""
    return any(
        frame.name in ('fromfile', 'merge_from_dict') and Path(frame.filename).parts[-2:] == ('config', 'config.py')
        for frame in traceback.extract_tb(frames)
    )


def _raised_on_purpose(frames: TracebackType | None, tool: Path) -> bool:
    if frames is None:
        return False
    last = traceback.extract_tb(frames)[-1]
    return last.line.startswith('raise') and _is_ours(Path(last.filename), tool)
