"""The tables of a page, made anew."""

from __future__ import annotations

import re
from collections.abc import Sequence

from page_numbers import MARK, NUMBER, line_of
from table_kinds import make_table, rows_made, rows_of_table

_BEGINS = re.compile(rf"[*+-]*(?:{NUMBER})(?![A-Za-z])")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("  ", " ")


def _names(rows: Sequence[Sequence[str]], at: Sequence[int], sections: bool) -> list[tuple[str, ...]]:
    """What each row is called: the section that it is in, and its cells in some columns."""
    names, section = [], ""
    for row in rows:
        section = row[0] if row[0].startswith("**") else section
        names.append((section if sections else "", *(row[i] for i in at)))
    return names


def cut(line: str, shown: str) -> str:
    """Some rows and columns of a table, in its order, with the table's cells.

    Args:
        line: What the whole table is made of.
        shown: The part as it stands in the page. Columns are found by their titles, but for the first; rows by their
            cells in the first and in columns without numbers, below the same row in bold. Of several such rows it is
            the next one that is equal, else the next one.

    Raises:
        LookupError: The table has no such row or column.
    """
    header, *whole = rows_made(line)
    titles, *rows = rows_of_table(shown) if shown else [[]]
    if not rows:
        raise LookupError("below 'cells:' stands no table; write the titles of its columns and rows")
    if unknown := [title for title in titles[1:] if title not in header]:
        raise LookupError(f"the table has no column {', '.join(unknown)}, but {', '.join(header)}")
    at = [0, *map(header.index, titles[1:])]
    parts = [[row[i] for i in at] for row in whole]
    columns = [i for i in range(len(at)) if i == 0 or not any(_BEGINS.match(row[i]) for row in parts)]
    sections = any(row[0].startswith("**") for row in rows)
    of_whole = _names(parts, columns, sections)
    lines, place = shown.split("\n")[:2], 0
    for row, name in zip(rows, _names(rows, columns, sections)):
        fitting = [i for i in range(place, len(parts)) if of_whole[i] == name]
        if not fitting:
            raise LookupError(f"the table has no row {', '.join(filter(None, name))} (behind the one before)")
        place = next((i for i in fitting if parts[i] == row), fitting[0]) + 1
        lines.append(_line(parts[place - 1]))
    return "\n".join(lines) + "\n"


def renew(page: str) -> tuple[str, list[tuple[int, str]]]:
    """The page with its tables made anew; and of each line that cannot be, or that changes, number and fault."""
    problems: list[tuple[int, str]] = []

    def made(mark: re.Match[str]) -> str:
        try:
            table = f"{make_table(mark['what'])}\n" if mark["how"] == "table" else cut(mark["what"], mark["table"])
        except (LookupError, OSError, ValueError) as error:
            problems.append((line_of(page, mark.start()), f"'{mark['how']}: {mark['what']}': {error}"))
            return mark[0]
        first, old, new = line_of(page, mark.start("table")), mark["table"].split("\n"), table.split("\n")
        for number in range(max(len(old), len(new))):
            was, now = (lines[number] if number < len(lines) else "" for lines in (old, new))
            if was != now:
                problems.append((first + number, f"'{was}' is '{now}'"))
        gap = "" if mark["table"] or mark.end() == len(page) else "\n"  # before what follows a first table
        return f"{page[mark.start() : page.index('-->', mark.start())]}-->\n\n{table}{gap}"

    return MARK.sub(made, page), problems
