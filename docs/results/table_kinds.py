"""The kinds of tables that pages have, and the table that the line of a page asks for."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import tables_calibration
import tables_list
import tables_losses
import tables_performance
import tables_trainings
from values import STUDY

KINDS = (
    tables_calibration.TABLES
    | tables_list.TABLES
    | tables_losses.TABLES
    | tables_performance.TABLES
    | tables_trainings.TABLES
)
"""By kind, the function of the folders (or files, without .csv) in study/ that gives a Markdown table."""


def expand(pattern: str) -> list[str]:
    """The names that `{a,b}` stands for."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if not braces:
        return [pattern]
    rest = pattern[braces.end() :]
    return [name for part in braces[1].split(",") for name in expand(pattern[: braces.start()] + part + rest)]


@cache
def make_table(line: str) -> str:
    """The Markdown table that `KIND FOLDER [FOLDER ...]` asks for.

    Raises:
        ValueError: There is no such kind or folder.
    """
    kind, *patterns = line.split()
    names = [name for pattern in patterns for name in expand(pattern)]
    if kind not in KINDS:
        raise ValueError(f"there is no kind of table '{kind}'; there are {', '.join(sorted(KINDS))}")
    paths = [STUDY / name for name in names]
    if missing := [path.name for path in paths if not (path.is_dir() or Path(f"{path}.csv").is_file())]:
        raise ValueError(f"study/ has no {', '.join(missing)}")
    return KINDS[kind](paths)


def rows_of_table(lines: str) -> list[list[str]]:
    """Cells of a Markdown table, its header first, without the line of dashes; a `\\|` belongs to a cell."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in lines.strip().split("\n")]
    return [row for row in rows if not all(re.fullmatch(":?-+:?", cell) for cell in row)]


@cache
def rows_made(line: str) -> list[list[str]]:
    """The same of a table that is made."""
    return rows_of_table(make_table(line))
