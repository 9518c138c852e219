"""The README and the pages of docs/ as tests read them: tables, links, blocks of code."""

from __future__ import annotations

import importlib
import re
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^(?: {4,}.*)?\n)+", re.MULTILINE)


def name(page: Path) -> str:
    """A page as it is called in a test's name."""
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of each block: fenced, or indented by four spaces (language '')."""
    found = [(fence[1], fence[2]) for fence in _FENCE.finditer(text)]
    rest = _FENCE.sub("", text)
    return found + [
        ("", re.sub("^ {4}", "", one, flags=re.MULTILINE)) for one in _INDENTED.findall(rest) if one.strip()
    ]


def table_rows(lines: list[str]) -> list[list[str]]:
    """Cells of the lines of a Markdown table, without the line of dashes; a `\\|` belongs to a cell."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in lines]
    return [row for row in rows if not all(set(cell) <= set(":-") and cell for cell in row)]


def tables(text: str) -> list[tuple[str, list[list[str]]]]:
    """(nearest heading above, rows) of each table, its header first."""
    heading, lines, found = "", [], []
    for line in [*text.split("\n"), ""]:
        if line.startswith("|"):
            lines.append(line)
            continue
        if lines:
            found.append((heading, table_rows(lines)))
            lines = []
        if line.startswith("#"):
            heading = line.lstrip("# ").strip()
    return found


def cell(page: str, heading: str, row: str, column: str) -> str:
    """One cell of the first table below a heading that has this row and column.

    Raises:
        LookupError: There is none.
    """
    for found, rows in tables((ROOT / page).read_text(encoding="utf-8")):
        if found == heading and column in rows[0]:
            for one in rows[1:]:
                if one[0] == row:
                    return one[rows[0].index(column)]
    raise LookupError(f"{page} has no table below '{heading}' with the row '{row}' and the column '{column}'")


@cache
def made_table(what: str) -> list[list[str]]:
    """The rows of a table that docs/results/write_tables.py makes of the values of every case, its header first."""
    sys.path.insert(0, str(RESULTS))
    try:
        write_tables = importlib.import_module("write_tables")
    finally:
        sys.path.remove(str(RESULTS))
    return table_rows(write_tables.make_table(what).split("\n"))


def slug(heading: str) -> str:
    """The anchor that GitHub and the site give to a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def anchors(text: str) -> set[str]:
    """All anchors of a page."""
    return {slug(found) for found in re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)}
