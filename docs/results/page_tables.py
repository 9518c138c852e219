"""The tables of a page, made anew."""

from __future__ import annotations

import re
from collections.abc import Sequence

from page_numbers import MARK, line_of
from table_kinds import make_table, rows_made, rows_of_table


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("  ", " ")


def _keys(rows: Sequence[Sequence[str]]) -> list[int]:
    """Columns that name a row: the first, and those without numbers."""
    return [0] + [i for i in range(1, len(rows[0])) if not any(re.match(r"[*+-]*\.?\d", row[i]) for row in rows[1:])]


def cut(line: str, shown: str) -> str:
    """Some rows and columns of a table, in its order, with the table's cells.

    Args:
        line: What the whole table is made of.
        shown: The part as it stands in the page. Columns are found by their titles, but for the first, and rows by
            their first cell and those without numbers; what occurs several times, by the order.

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
    keys = [i for i in _keys([header, *whole]) if i in at]
    lines, place = shown.split("\n")[:2], 0
    for row in rows:
        name = [row[at.index(i)] for i in keys]
        fitting = [i for i in range(place, len(whole)) if [whole[i][k] for k in keys] == name]
        if not fitting:
            raise LookupError(f"the table has no row {name} (behind the one before)")
        place = fitting[0] + 1
        lines.append(_line([whole[fitting[0]][i] for i in at]))
    return "\n".join(lines) + "\n"


def renew(page: str) -> tuple[str, list[tuple[int, str]]]:
    """The page with its tables made anew; and of each line that cannot be, or that changes, its number and what it is."""
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
