"""What a table is made of: cells with a number, marks of the best and second, captions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Cell", "Table", "mark", "marked", "number", "numeric_columns"]


@dataclass(frozen=True)
class Cell:
    """A number, as shown and in full; ``best`` and ``second`` of its group."""

    text: str
    value: float
    best: bool = False
    second: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"text": self.text, "value": self.value, "best": self.best, "second": self.second}


@dataclass(frozen=True)
class Table:
    """A table: header, rows of texts and numbers, and what has to be said about it.

    Attributes:
        id: Name of its files.
        title: One line.
        caption: What the numbers are, over how many cases, what is left out.
        columns: Header.
        rows: Texts and cells.
        dataset: Name of the data set, None if it is about several.
        csv_columns: Header of the CSV where it has more numbers than the table.
        csv_rows: Its rows.
    """

    id: str
    title: str
    caption: str
    columns: list[str]
    rows: list[list[Cell | str]]
    dataset: str | None = None
    csv_columns: list[str] | None = None
    csv_rows: list[list[Any]] | None = None


def mark(values: Sequence[float], texts: Sequence[str], better: str) -> list[Cell]:
    """Cells with the best and the second-best marked, all of them where they are equal as shown.

    What is rounded to the same text counts as equal: a reader sees no difference. Where all are equal nothing is
    marked; of two methods only the best; where two or more are best, the next is no second.
    """
    sign = -1 if better == "higher" else 1
    order = {text: sign * value for value, text in sorted(zip(values, texts)) if not math.isnan(value)}
    ranked = sorted(order, key=order.__getitem__)
    best = ranked[0] if len(ranked) > 1 else None
    second = ranked[1] if len(ranked) > 1 and len(texts) > 2 and texts.count(best) == 1 else None
    return [Cell(text, value, text == best, text == second) for value, text in zip(values, texts)]


def number(value: float, decimals: int) -> str:
    """As tables show it."""
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def numeric_columns(table: Table) -> list[bool]:
    """Which columns hold numbers: they are set flush right."""
    return [any(isinstance(row[i], Cell) for row in table.rows) for i in range(len(table.columns))]


def marked(cell: Cell | str, escape: Callable[[str], str], bold: str, underlined: str) -> str:
    """A cell's text, escaped, within the format ``bold`` if it is the best, ``underlined`` if it is second."""
    if isinstance(cell, str):
        return escape(cell)
    text = escape(cell.text)
    return bold.format(text) if cell.best else underlined.format(text) if cell.second else text
