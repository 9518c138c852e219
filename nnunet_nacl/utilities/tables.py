"""Tables as pandas frames of numbers, and their text for a terminal, a CSV file and a page."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from nnunet_nacl.utilities.errors import shorten

Rows = Sequence[Mapping[str, Any]]
"""Cells by the name of their column: texts, numbers, and pairs of a number and its text."""

TERMINAL_WIDTH = 80
"""Characters of a line that every terminal shows whole."""
LONGEST_NAME = 60
"""Letters of a name in a terminal's table; of longer ones the middle is left out."""
_MOST_NAMES = 10
_DISTANCES = ("HD95", "ASSD")
"""How names of columns with distances in mm begin."""
_DECIMALS_OF_DISTANCES = 2


def number(value: float, decimals: int = 3, sign: str = "") -> str:
    """A number as tables show it: ``-`` where it is undefined, no sign before what is 0 as shown.

    ``sign`` is ``+``, for one before all others, or empty.
    """
    if math.isnan(value):
        return "-"
    text = f"{value:{sign}.{decimals}f}"
    is_zero_as_shown = float(text) == 0
    if sign and is_zero_as_shown:
        return text[1:]
    return text


def frames(rows: Rows, decimals: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Values and texts of rows.

    Numbers without a text of their own have so many decimals, distances in mm two.
    """
    cells = pd.DataFrame(rows, dtype=object)
    values = cells.map(_value_of_cell).infer_objects()
    texts = cells.apply(_texts_of_column, decimals=decimals)
    return values, texts


def _value_of_cell(cell: Any) -> Any:
    if isinstance(cell, tuple):
        value, _ = cell
        return value
    return cell


def _texts_of_column(column: pd.Series, decimals: int) -> pd.Series:
    if str(column.name).startswith(_DISTANCES):
        decimals = _DECIMALS_OF_DISTANCES
    return column.map(lambda cell: _text_of_cell(cell, decimals))


def _text_of_cell(cell: Any, decimals: int) -> str:
    if isinstance(cell, tuple):
        _, text = cell
        return text
    if isinstance(cell, float):
        return number(cell, decimals)
    return str(cell)


def text_of(rows: Rows | pd.DataFrame, keys: int = 1, decimals: int = 3) -> str:
    """Rows, or their texts, for a terminal.

    The first columns, so many as ``keys``, name a row, and are flush left; of equal names in rows
    that follow each other the first is shown. Other columns are flush right.
    """
    if isinstance(rows, pd.DataFrame):
        texts = rows
    else:
        _, texts = frames(rows, decimals)
    texts = texts.rename(columns=lambda name: shorten(str(name), LONGEST_NAME))
    names = list(texts.columns[:keys])
    texts = texts.assign(**{name: _shorten_names(texts[name]) for name in names})
    indexed = texts.set_index(names)
    if keys == 1:  # the heading of the only name stands in the line of the others
        indexed = indexed.rename_axis(index=None, columns=names[0])
    # two spaces before a heading of several words, so that it can be told from its neighbour
    widths = {name: len(name) + 1 for name in indexed.columns if " " in name}
    lines = indexed.to_string(col_space=widths).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _shorten_names(names: pd.Series) -> pd.Series:
    return names.map(lambda name: shorten(str(name), LONGEST_NAME))


def wrap_text(text: str) -> str:
    """A sentence in lines of at most 80 characters, which break between words alone."""
    return textwrap.fill(text, TERMINAL_WIDTH, break_long_words=False, break_on_hyphens=False)


def ten_worst(
    rows: Rows, name: str, value: Callable[[Mapping[str, Any]], float]
) -> tuple[Rows, list[str]]:
    """The rows of the ten names with the lowest values, which are taken to be the worst.

    Args:
        rows: Of all names; a name may have several.
        name: Column of the names.
        value: Of a row, NaN is the highest; of a name's rows the lowest counts.

    Returns:
        The rows in their order, and a line on how many more names there are, if any.
    """
    values = pd.Series([value(row) for row in rows], [row[name] for row in rows], float)
    lowest = values.groupby(level=0, sort=False).min().fillna(math.inf)
    n_more = len(lowest) - _MOST_NAMES
    if n_more <= 0:
        return rows, []
    worst_names = set(lowest.nsmallest(_MOST_NAMES).index)
    worst_rows = [row for row in rows if row[name] in worst_names]
    return worst_rows, [f"the {_MOST_NAMES} worst, and {n_more} more in the file"]
