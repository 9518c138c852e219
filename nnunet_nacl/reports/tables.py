"""Tables as pandas frames of numbers, and their text for a terminal, a CSV file and a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

Rows = Sequence[Mapping[str, Any]]
"""Cells by the name of their column: texts, numbers, and pairs of a number and its text."""
_MOST_NAMES = 10


def number(value: float, decimals: int = 3, sign: str = "") -> str:
    """As tables show it: ``-`` where it is undefined, no sign before what is 0 as shown; ``sign``
    is ``+`` or empty."""
    if math.isnan(value):
        return "-"
    text = f"{value:{sign}.{decimals}f}"
    return text if float(text) or not sign else text[1:]


def frames(rows: Rows, decimals: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Values and texts of rows; numbers without a text of their own have so many decimals,
    distances in mm two."""

    def shown(column: pd.Series) -> pd.Series:
        digits = 2 if str(column.name).startswith(("HD95", "ASSD")) else decimals
        return column.map(
            lambda cell: number(cell, digits) if isinstance(cell, float) else str(cell)
        )

    cells = pd.DataFrame(rows, dtype=object)
    values, texts = (
        cells.map(lambda cell, i=i: cell[i] if isinstance(cell, tuple) else cell) for i in (0, 1)
    )
    return values.infer_objects(), texts.apply(shown)


def text_of(rows: Rows | pd.DataFrame, keys: int = 1, decimals: int = 3) -> str:
    """Rows, or their texts, for a terminal: flush right but for the first columns, ``keys``, which
    name a row.

    Of equal names in rows that follow each other the first is shown.
    """
    texts = rows if isinstance(rows, pd.DataFrame) else frames(rows, decimals)[1]
    names = list(texts.columns[:keys])
    indexed = texts.set_index(names)
    return (indexed if keys > 1 else indexed.rename_axis(index=None, columns=names[0])).to_string()


def ten_worst(
    rows: Rows, name: str, value: Callable[[Mapping[str, Any]], float]
) -> tuple[Rows, list[str]]:
    """Rows of the ten names, in a column, with the lowest values, in their order; a line on how
    many more there are.

    Of a name's rows the lowest value counts, NaN is the highest.
    """
    lowest = pd.Series([value(row) for row in rows], [row[name] for row in rows], float)
    lowest = lowest.groupby(level=0, sort=False).min().fillna(math.inf)
    more = len(lowest) - _MOST_NAMES
    if more <= 0:
        return rows, []
    shown = set(lowest.nsmallest(_MOST_NAMES).index)
    return [row for row in rows if row[name] in shown], [
        f"the {_MOST_NAMES} worst, and {more} more in the file"
    ]
