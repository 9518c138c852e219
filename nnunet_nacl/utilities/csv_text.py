"""CSV as it is written here: numbers come back bit by bit, and no cell is run by a spreadsheet."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import NamedTuple

# What a spreadsheet runs begins a cell, or a line that it splits a cell at. The fullwidth signs
# begin formulas where Chinese or Japanese is written. marks.js has both patterns, too.
_BEGIN_OF_CELL = "(?:^|(?<=[;|\t\r\n]))"
_BEGIN_OF_FORMULA = "(?=[\\s\"']*[=+\\-@\t\uff1d\uff0b\uff0d\uff20])"


class CsvColumn(NamedTuple):
    """A column of a CSV file as it is written and documented.

    Attributes:
        name: In the header; braces stand for what depends on the scans.
        unit: Or range, or kind of text.
        meaning: In sentences.
    """

    name: str
    unit: str
    meaning: str


def to_csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV whose floating-point numbers are read back bit by bit; NaN and None are empty cells, all
    text is in quotes.

    Text that a spreadsheet would run as a formula (``=``, ``+``, ``-``, ``@`` or a tab first, as in
    a case's name) gets a leading apostrophe, with which spreadsheets show it as it is. So does such
    text inside a cell, behind what some spreadsheets split lines at: these take only a quote that
    begins a cell of theirs for one. The csv module and pandas cannot leave cells empty and quote
    text at once: pandas quotes what is missing.
    """
    lines = []
    for row in (header, *rows):
        lines.append(",".join(_format_cell(value) for value in row) + "\n")
    return "".join(lines)


def from_csv_cell(text: str) -> str:
    """Text as it was before :func:`to_csv_text` put apostrophes into it."""
    return re.sub(f"{_BEGIN_OF_CELL}'{_BEGIN_OF_FORMULA}", "", text)


def _format_cell(value: object) -> str:
    if isinstance(value, Integral):
        return str(value)
    if isinstance(value, Real):
        number = float(value)
        return "" if math.isnan(number) else repr(number)
    if value is None or value == "":
        return ""
    text = re.sub(_BEGIN_OF_CELL + _BEGIN_OF_FORMULA, "'", str(value))
    quoted = text.replace('"', '""')
    return f'"{quoted}"'
