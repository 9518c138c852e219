"""Tables as text: CSV in full precision, Markdown, and aligned for a terminal. All text is escaped."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import Any

from nnunet_nacl.comparison.cells import Cell, Table, marked, numeric_columns

__all__ = ["csv_text", "escape_markdown", "markdown_text", "terminal_text"]


def csv_text(table: Table, notes: Sequence[str] = ()) -> str:
    """Every number in full precision (``repr``, read back bit by bit); undefined ones are empty.

    Notes stand in a last column, in every row, so that no row loses them when rows are sorted or taken elsewhere.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    note = [" ".join(notes)] if notes else []
    writer.writerow([*(table.csv_columns or table.columns), *(["note"] if notes else [])])
    for row in table.rows if table.csv_rows is None else table.csv_rows:
        writer.writerow([*(_full(cell) for cell in row), *note])
    return stream.getvalue()


def _full(cell: Any) -> Any:
    value = cell.value if isinstance(cell, Cell) else cell
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return int(value) if value.is_integer() and abs(value) < 2**53 and _is_count(cell) else repr(value)
    return value


def _is_count(cell: Any) -> bool:
    return isinstance(cell, Cell) and re.fullmatch(r"\d+", cell.text) is not None


def markdown_text(table: Table, notes: Sequence[str] = ()) -> str:
    """Best bold, second underlined by ``<u>``; the caption and the notes below."""
    header = [escape_markdown(name) for name in table.columns]
    right = numeric_columns(table)
    lines = [f"## {escape_markdown(table.title)}", "", f"| {' | '.join(header)} |"]
    lines.append("|" + "|".join(" ---: " if is_number else " :--- " for is_number in right) + "|")
    for row in table.rows:
        cells = [marked(cell, escape_markdown, "**{}**", "<u>{}</u>") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", escape_markdown(table.caption)]
    for note in notes:
        lines += ["", f"**Note:** {escape_markdown(note)}"]
    return "\n".join(lines) + "\n"


def terminal_text(table: Table) -> str:
    """Aligned columns; ``*`` follows the best and ``+`` the second."""
    rows = [list(table.columns)]
    marks = any(isinstance(cell, Cell) and (cell.best or cell.second) for row in table.rows for cell in row)
    for row in table.rows:
        shown = []
        for cell in row:
            mark = (" *" if cell.best else " +" if cell.second else "  ") if marks and isinstance(cell, Cell) else ""
            shown.append((cell.text if isinstance(cell, Cell) else cell) + mark)
        rows.append(shown)
    right = numeric_columns(table)
    if marks:
        rows[0] = [name + ("  " if is_number else "") for name, is_number in zip(rows[0], right)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(right))]
    lines = [table.title + ("   (* best, + second)" if marks else "")]
    for i, row in enumerate(rows):
        previous = rows[i - 1][0] if i > 1 else row[0]
        if i > 1 and row[0] != previous and not isinstance(table.rows[0][1], Cell):
            lines.append("")
        cells = [
            cell.rjust(width) if is_number else cell.ljust(width) for cell, width, is_number in zip(row, widths, right)
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~$&])")


def escape_markdown(text: str) -> str:
    """Text as it is, whatever Markdown makes of its characters; one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
